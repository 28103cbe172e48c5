// The search page: which page a word leads to first, results for questions, plain text.
// Runs between Sphinx's own search and its index.
(() => {
  // What readers call things, by the page that explains them. A page stands above all
  // other results where one of its phrases is in the question.
  const PHRASES = {
    "book/index": ["get started", "install", "requirements", "how long"],
    "book/ratings-and-sparsity": ["sparsity", "sparse matrix", "long tail", "empty"],
    "book/baselines-and-evaluation": ["baseline", "leakage", "leak", "rmse", "test set", "cross validation",
      "confidence interval", "bootstrap", "bias"],
    "book/splits-and-lists": ["train test split", "split", "cold start", "newcomers", "popularity", "popularity bias"],
    "book/factorising-by-hand": ["matrix factorisation", "latent factors", "gradient descent", "sgd", "by hand"],
    "book/playground": ["playground", "interactive", "demo", "visualisation"],
    "book/simple-als": ["from scratch", "numpy implementation", "als in python", "simple als"],
    "book/rank-and-regularisation": ["regularisation", "overfitting", "overfit", "lambda", "ridge", "hyperparameter",
      "tuning", "number of factors", "how many factors", "rank", "early stopping"],
    "book/what-the-factors-found": ["noise floor", "interpret", "interpretation", "meaning of factors", "singular values"],
    "book/fast-als": ["numba", "speed", "performance", "faster", "parallel", "threads", "complexity"],
    "book/spark-als": ["spark", "pyspark", "spark ml", "java"],
    "book/one-machine-or-cluster": ["single machine", "is spark faster", "spark or numpy", "benchmark"],
    "book/post-mortem": ["worse than the mean", "lose to the mean", "post mortem", "als does not work"],
    "book/spark-cluster": ["cluster", "distributed", "shuffle", "blocks", "spark cluster", "scale", "skew"],
    "book/spark-operations": ["spark submit", "checkpoint", "storage level", "executor memory", "yarn", "kubernetes",
      "production", "nightly", "train_als"],
    "book/implicit-als": ["implicit feedback", "implicit", "likes", "clicks", "confidence", "alpha", "explain",
      "one class"],
    "book/counts": ["counts", "play counts", "plays", "event log", "events", "recency", "time decay", "forgetting",
      "unobserved weight", "ials"],
    "book/large-ranks": ["conjugate gradient", "large rank", "large ranks", "approximate solver"],
    "book/ranking-evaluation": ["evaluation", "evaluate", "metrics", "ndcg", "map", "precision", "recall",
      "hit rate", "top n", "offline evaluation"],
    "book/als-dialects": ["implicit library", "cheat sheet", "compare libraries", "lenskit", "weighted lambda"],
    "book/when-to-use-als": ["when to use", "alternatives", "neural", "deep learning", "two tower", "bpr",
      "limitations"],
    "book/state-of-the-art": ["ials", "ease", "slim", "strong generalisation", "strong generalization",
      "state of the art", "unobserved weight", "reproducibility"],
    "book/serving": ["serving", "serve", "deploy", "deployment", "production", "api service", "nearest neighbours",
      "ann", "latency", "top k"],
    "book/nightly-loop": ["nightly", "retrain", "refit", "new users", "fold in", "a b test", "interleaving", "peeking",
      "churn", "feedback loop", "staleness", "kubernetes", "cron"],
    "book/museum": ["mistakes", "pitfalls", "bugs", "wrong", "debugging", "debug", "troubleshooting"],
    "book/teaching": ["teach", "teaching", "course", "class", "students", "grading", "syllabus"],
    "book/capstone": ["project", "own data", "capstone"],
    "book/datasets": ["dataset", "data", "movielens", "amazon", "download data"],
    "book/protocols": ["protocol", "what is scored", "compare scores"],
    "book/library": ["api", "reference", "function", "documentation"],
    "book/notation": ["notation", "symbols", "formula"],
    "book/glossary": ["glossary", "definition", "terms"],
    "book/bibliography": ["papers", "literature", "references", "further reading"],
  };
  const [stemmer, perform, toText] = [new Stemmer(), Search._performSearch, Search.htmlToText];
  const stems = (text) => splitQuery(text.toLowerCase()).map((word) => stemmer.stemWord(word));

  Search._performSearch = (query, terms, ...rest) => {
    let results = perform(query, terms, ...rest);
    if (!results.length) { // no page has all the words: those that have one will do
      results = [...terms].flatMap((term) => perform(term, new Set([term]), ...rest));
    }
    const { docnames, titles, filenames } = Search._index;
    const asked = ` ${stems(query).join(" ")} `;
    const first = [];
    for (const [page, phrases] of Object.entries(PHRASES)) {
      const found = phrases.map(stems).filter((words) => asked.includes(` ${words.join(" ")} `));
      const length = Math.max(0, ...found.map((words) => words.length));
      const file = docnames.indexOf(page);
      if (length && file >= 0) first.push([page, titles[file], "", null, 100 * length, filenames[file]]);
    }
    first.sort((a, b) => a[4] - b[4]); // the last one is shown first
    const again = (result) => first.some(([page]) => page === result[0] && !result[2]);
    return [...results.filter((result) => !again(result)), ...first];
  };

  // A formula as text is soup, and a file cannot be fetched from a file.
  Search.htmlToText = (html, anchor) => toText(html.replace(/<math[^]*?<\/math>/g, " … "), anchor);
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
})();
