// Python in a worker. Commands come in as {id, command, ...}; {id, kind, ...} goes out, and
// last {id, kind: "done", ...}. Every file is of this site.
const base = new URL("./", import.meta.url);
let python, live, told, current = 0, later = null;
const say = (kind, more) => postMessage({ id: current, kind, ...more });

// Tell how much has been loaded.
let loaded = 0, last = 0;
const plain = self.fetch.bind(self);
const counted = async (request, options) => {
  const answer = await plain(request, options);
  if (!answer.ok || !answer.body) return answer;
  const count = new TransformStream({
    transform(chunk, to) {
      loaded += chunk.length;
      to.enqueue(chunk);
      if (performance.now() - last > 200) say("progress", { loaded });
      if (performance.now() - last > 200) last = performance.now();
    },
  });
  const { headers } = answer;
  return new Response(answer.body.pipeThrough(count), { headers: { "Content-Type": headers.get("Content-Type") ?? "" } });
};

const commands = {
  async boot({ told: of_page, files, stopper }) {
    told = of_page;
    self.fetch = counted;
    const indexURL = new URL(`python-${told.python}/`, base).href;
    const get = async (name) => (await plain(new URL(`${name}?v=${told.version}`, base))).text();
    const { loadPyodide } = await import(`${indexURL}pyodide.mjs`);
    const [made, program, library] = await Promise.all([
      loadPyodide({ indexURL, packages: told.first, stdout() {}, stderr() {} }), get("live.py"), get("library.json"),
    ]);
    self.fetch = plain;
    python = made;
    if (stopper) python.setInterruptBuffer(new Uint8Array(stopper));
    const put = (path, content) => {
      python.FS.mkdirTree(path.slice(0, path.lastIndexOf("/")));
      python.FS.writeFile(path, content);
    };
    put("/home/pyodide/live.py", program);
    for (const [name, text] of Object.entries(JSON.parse(library))) put(`/home/pyodide/book/${name}`, text);
    python.runPython("import sys; sys.path[:0] = ['/home/pyodide', '/home/pyodide/book']");
    live = python.pyimport("live");
    for (const [name, bytes] of Object.entries(files)) live.keep(name, new Uint8Array(bytes));
    return {};
  },
  async run({ source, name }) {
    if (later) await later; // what other cells of the page import
    const hand = (kind, text, alt) => say(kind, { text, alt });
    let failed = live.run(source, name, hand);
    if (!later) {
      later = python.loadPackage(told.packages, { messageCallback() {} });
      if (failed?.get("error").includes("ModuleNotFoundError")) { // inside a function of the library
        await later;
        say("again");
        failed = live.run(source, name, hand);
      }
    }
    return failed ? failed.toJs({ dict_converter: Object.fromEntries }) : {};
  },
  async check({ source }) {
    return { said: live.check(source) };
  },
  async data({ name, bytes }) {
    return { said: live.offer(name, new Uint8Array(bytes)) };
  },
};

let queue = Promise.resolve();
onmessage = ({ data }) => {
  queue = queue.then(async () => {
    current = data.id;
    let answer;
    try {
      answer = await commands[data.command](data);
    } catch (error) {
      answer = { error: String(error?.message ?? error) };
    }
    say("done", answer);
  });
};
