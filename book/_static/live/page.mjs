// A page with Python behind it: cells are edited and run, exercises answered and checked.
export function start({ told, base, make, button, recall, remember, save }) {
  const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
  const own = (change) => remember(told.page, change);

  // -- Python, in a worker ----------------------------------------------------------------
  const waiting = new Map(), ran = new Map(); // what is asked; the code each cell last ran
  let worker = null, stopper = null, number = 0, files = null;
  const ask = (command, content = {}, hear = () => {}) => new Promise((resolve) => {
    waiting.set(++number, { resolve, hear });
    worker.postMessage({ id: number, command, ...content });
  });
  const end = (error) => {
    worker?.terminate();
    worker = null;
    ran.clear();
    for (const { resolve } of waiting.values()) resolve({ error, stopped: true });
    waiting.clear();
  };
  const boot = async (hear) => {
    if (worker) return {};
    worker = new Worker(new URL(`worker.mjs?v=${told.version}`, base), { type: "module" });
    worker.onmessage = ({ data }) => {
      const asked = waiting.get(data.id);
      if (data.kind !== "done") return asked?.hear(data);
      waiting.delete(data.id);
      asked?.resolve(data);
    };
    worker.onerror = ({ message }) => end(`Python could not be started: ${message ?? "the browser refused"}`);
    if (self.crossOriginIsolated) stopper = new Uint8Array(new SharedArrayBuffer(1));
    files ??= await stored();
    return ask("boot", { told, files, stopper: stopper?.buffer }, hear);
  };
  const stop = () => {
    const asked = [...waiting.keys()];
    if (!stopper || !ran.size) return end("Stopped. Python starts anew with the next press.");
    stopper[0] = 2; // an interrupt, which leaves the variables
    setTimeout(() => asked.some((id) => waiting.has(id)) && end("Stopped. Python starts anew with the next press."), 3000);
  };

  // -- code that can be edited --------------------------------------------------------------
  const TOKENS = /(#.*)|([rfb]{0,2}(?:"""[^]*?"""|'''[^]*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))|\b(False|None|True|and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|nonlocal|not|or|pass|raise|return|try|while|with|yield)\b|\b(\d[\d_.]*(?:e[+-]?\d+)?)\b/g;
  const KINDS = ["comment", "string", "keyword", "number"];
  const colours = CSS.highlights && Object.fromEntries([...KINDS, "wrong"].map((kind) => {
    CSS.highlights.set(`live-${kind}`, new Highlight());
    return [kind, CSS.highlights.get(`live-${kind}`)];
  }));
  const mark = (editor, kind, from, to) => {
    const range = new Range();
    range.setStart(editor.box.firstChild, from);
    range.setEnd(editor.box.firstChild, to);
    colours[kind].add(range);
    editor.ranges.push([kind, range]);
  };
  const paint = (editor) => {
    const { box } = editor, text = box.textContent;
    if (!colours) return;
    for (const [kind, range] of editor.ranges) colours[kind].delete(range);
    editor.ranges = [];
    if (!text) return;
    if (box.childNodes.length !== 1 || box.firstChild.nodeType !== Node.TEXT_NODE) return;
    for (const found of text.matchAll(TOKENS)) {
      mark(editor, KINDS[found.slice(1).findIndex(Boolean)], found.index, found.index + found[0].length);
    }
  };
  const markLine = (editor, line) => {
    const lines = editor.text().split("\n"), from = lines.slice(0, line - 1).join("\n").length + (line > 1);
    if (colours && lines[line - 1]) mark(editor, "wrong", from, from + lines[line - 1].length);
  };
  const edit = (pre, label, text, changed, run) => {
    const box = make("span", { className: "live-code", contentEditable: "plaintext-only", spellcheck: false });
    if (box.contentEditable !== "plaintext-only") box.contentEditable = "true";
    for (const [name, value] of Object.entries({ role: "textbox", "aria-multiline": "true", "aria-label": label, autocapitalize: "off", autocorrect: "off", translate: "no" })) {
      box.setAttribute(name, value);
    }
    const editor = { box, ranges: [], text: () => box.textContent.replace(/\u00a0/g, " ").replace(/\n$/, "") };
    editor.write = (new_) => { box.textContent = new_; paint(editor); };
    box.addEventListener("input", () => {
      box.querySelectorAll("br").forEach((line) => line.replaceWith("\n"));
      box.normalize();
      paint(editor);
      changed(editor.text());
    });
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      if (event.shiftKey || event.ctrlKey || event.metaKey) return run();
      const before = getSelection().getRangeAt(0).cloneRange();
      before.setStart(box, 0);
      const line = before.toString().split("\n").pop();
      const indent = line.match(/^ */)[0] + (/:\s*(#.*)?$/.test(line) ? "    " : "");
      const last = before.toString().length >= box.textContent.length ? "\n" : "";
      document.execCommand("insertText", false, `\n${indent}${last}`);
      if (last) getSelection().modify("move", "backward", "character");
    });
    pre.replaceChildren(box);
    editor.write(text);
    return editor;
  };

  // -- what a run shows -----------------------------------------------------------------------
  const table = (html) => {
    const { body } = new DOMParser().parseFromString(html, "text/html");
    body.querySelectorAll("script, style, iframe, object, embed, link, form").forEach((e) => e.remove());
    for (const element of body.querySelectorAll("*")) {
      for (const { name } of [...element.attributes]) if (/^(on|src|href)/.test(name)) element.removeAttribute(name);
    }
    body.querySelectorAll("thead th").forEach((th) => (th.textContent ? (th.scope = "col") : th.replaceWith(make("td"))));
    body.querySelectorAll("tbody th").forEach((th) => (th.scope = "row"));
    const box = make("div", { className: "output text_html", tabIndex: 0 }, ...body.childNodes);
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "table");
    return box;
  };
  const figure = (out, svg, alt) => {
    const image = make("img", { alt, src: URL.createObjectURL(new Blob([svg.slice(svg.indexOf("<svg"))], { type: "image/svg+xml" })) });
    image.onload = () => URL.revokeObjectURL(image.src);
    out.append(image);
  };
  const show = (out, { kind, text, alt }) => {
    if (kind === "again") return out.replaceChildren();
    if (kind === "html") return out.append(table(text));
    if (kind === "figure") return figure(out, text, alt);
    if (kind === "error") return out.append(make("pre", { className: "output live-error", tabIndex: 0 }, text));
    let box = out.lastElementChild;
    if (!box?.matches(".live-text")) out.append(box = make("pre", { className: "output live-text", tabIndex: 0 }));
    // a progress bar begins its line anew
    box.textContent = (box.textContent + text).replace(/\r\n/g, "\n").replace(/[^\n]*\r(?!$)/g, "");
  };
  const output = (label) => {
    const out = make("div", { className: "cell_output live-out", hidden: true });
    out.setAttribute("role", "group");
    out.setAttribute("aria-label", label);
    return out;
  };

  // -- running ----------------------------------------------------------------------------------
  const say = (place, text) => { place.status.textContent = text; };
  const withStatus = (place, box) => {
    place.status = make("span", { className: "live-status" });
    place.status.setAttribute("role", "status");
    place.loaded = make("progress", { max: told.bytes, hidden: true });
    place.loaded.setAttribute("aria-label", "Python is loaded");
    place.stop = button("stop", "Stop", "", stop);
    box.append(place.stop, place.status, place.loaded);
  };
  const runOne = async (source, name, { out, place }) => {
    if (!worker) say(place, `Python is loaded, ${megabytes(told.bytes)} MB the first time.`);
    const progress = ({ loaded }) => {
      place.loaded.hidden = false;
      place.loaded.value = loaded;
      place.loaded.title = `${megabytes(loaded)} of ${megabytes(told.bytes)} MB`;
      place.status.nextSibling.setAttribute("aria-valuetext", place.loaded.title);
      say(place, place.loaded.title);
    };
    let answer = await boot(progress);
    place.loaded.hidden = true;
    if (!answer.error) {
      say(place, "Running");
      answer = await ask("run", { source, name }, (event) => out && show(out, event));
    } else if (!answer.stopped) end(answer.error);
    if (answer.error && out) show(out, { kind: "error", text: answer.error });
    return answer;
  };
  let queue = Promise.resolve(), queued = 0;
  const alone = (work) => { // one press after the other
    queued++;
    document.body.classList.add("live-busy");
    return (queue = queue.then(work).finally(() => {
      if (!--queued) document.body.classList.remove("live-busy");
    }));
  };

  const cells = [...document.querySelectorAll('div.cell[id^="live-"]')].map((box) => {
    const number = Number(box.id.slice(5)), pre = box.querySelector(".cell_input pre");
    const cell = { number, name: `cell ${number + 1}`, box, pre, original: [...pre.childNodes], bar: box.querySelector(".live-bar") };
    const first = pre.textContent.replace(/\n$/, "");
    cell.code = () => cell.editor?.text() ?? first;
    cell.book = [...box.querySelectorAll(":scope > .cell_output")];
    cell.out = output(`Output of your run of ${cell.name}`);
    box.append(cell.out);
    withStatus(cell, cell.bar);
    cell.reset = button("reset", "Reset", cell.name, () => {
      cell.editor.write(first);
      cell.out.replaceChildren();
      cell.out.hidden = cell.reset.hidden = true;
      for (const book of cell.book) book.hidden = false;
      own((kept) => { delete kept.edits[number]; });
      say(cell, "As in the book again");
    });
    cell.reset.hidden = true;
    cell.stop.before(cell.reset);
    cell.edit = (text = first) => {
      cell.editor ??= edit(pre, `Code of ${cell.name}, can be changed`, text, (now) => {
        cell.reset.hidden = false;
        own((kept) => { kept.edits[number] = now; });
      }, () => runTo(cell));
      cell.bar.querySelector(".live-edit").hidden = true;
    };
    return cell;
  });
  // Preparations that the page does not show run with the cells that it shows.
  for (const [number, code] of told.hidden) cells.push({ number, name: `preparation ${number + 1}`, code: () => code });
  cells.sort((a, b) => a.number - b.number);

  /** Run those of some cells that have not run, or with other code; true if all went well. */
  const runAll = async (wanted, presser) => {
    const from = wanted.findIndex((cell) => ran.get(cell.number) !== cell.code() || cell === presser);
    const todo = from < 0 ? [] : wanted.slice(from);
    for (const [place, cell] of todo.entries()) {
      if (presser !== cell) say(presser, `Running ${cell.name}, ${place + 1} of ${todo.length}`);
      const source = cell.code(), began = performance.now();
      if (cell.box) {
        cell.out.replaceChildren();
        cell.out.hidden = false;
        for (const book of cell.book) book.hidden = true;
        cell.reset.hidden = false;
        cell.edit();
        paint(cell.editor);
      }
      const answer = await runOne(source, cell.name, { out: cell.out, place: presser });
      if (answer.error) {
        if (answer.line && cell.editor) markLine(cell.editor, answer.line);
        say(presser, answer.stopped ? "Stopped" : cell === presser ? "Ended with an error" : `${cell.name} ended with an error`);
        return false;
      }
      ran.set(cell.number, source);
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      if (cell.status) say(cell, `Done in ${seconds} s`);
    }
    if (presser.status && !todo.includes(presser)) say(presser, "");
    if (told.data.length) offerData();
    return true;
  };
  const runTo = (cell) => (say(cell, "Waiting"), alone(() => runAll(cells.filter((c) => c.number <= cell.number), cell)));
  const cellOf = (number) => cells.find((cell) => cell.number === number && cell.box);

  // -- exercises -----------------------------------------------------------------------------------
  const answers = new Map();
  const answer = (label) => {
    if (answers.has(label)) return answers.get(label).editor.box.focus();
    const { title, stub, check, needs } = told.exercises.find((one) => one.label === label);
    const box = document.getElementById(label), bar = box.querySelector(".live-bar"), pre = make("pre"), out = output(`Output of your answer to ${title}`);
    const place = { out };
    out.setAttribute("aria-live", "polite");
    const verdict = (right, text) => {
      const said = make("p", { className: "live-verdict" }, text);
      said.dataset.right = right;
      out.append(said);
      say(place, right ? "Right" : "Not yet");
      box.classList.toggle("live-solved", right || recall(told.page).solved.includes(label));
    };
    const tried = () => alone(async () => {
      out.replaceChildren();
      out.hidden = false;
      if (!(await runAll(cells.filter((cell) => needs.includes(cell.number) || told.hidden.some(([n]) => n === cell.number)), place))) return;
      const done = await runOne(place.editor.text(), `answer to ${title}`, { out, place });
      if (done.error) {
        if (done.line) markLine(place.editor, done.line);
        return say(place, done.stopped ? "Stopped" : "Your answer ended with an error");
      }
      const { said, error } = await ask("check", { source: check });
      if (!said && !error) own((kept) => { kept.solved = [...new Set([...kept.solved, label])]; });
      verdict(!said && !error, said || error || "The check passes.");
    });
    const store = (text) => own((kept) => { kept.answers[label] = text; });
    place.editor = edit(pre, `Your answer to ${title}`, recall(told.page).answers[label] ?? stub, store, tried);
    bar.replaceChildren(button("run", "Check", title, tried), button("reset", "Start over", title, () => {
      place.editor.write(stub);
      own((kept) => { delete kept.answers[label]; });
      out.replaceChildren();
    }));
    withStatus(place, bar);
    bar.before(make("div", { className: "cell_input live-answer" }, make("div", { className: "highlight" }, pre)));
    bar.after(out);
    answers.set(label, place);
    place.editor.box.focus();
  };

  // -- ratings of the reader's own --------------------------------------------------------------------
  const inStore = (mode, act) => new Promise((resolve, reject) => {
    const open = indexedDB.open("als-course", 1);
    open.onupgradeneeded = () => open.result.createObjectStore("files");
    open.onerror = () => reject(open.error);
    open.onsuccess = () => {
      const asked = act(open.result.transaction("files", mode).objectStore("files"));
      asked.onsuccess = () => { open.result.close(); resolve(asked.result); };
      asked.onerror = () => reject(asked.error);
    };
  });
  const stored = async () => {
    const found = {};
    for (const name of told.data) {
      const bytes = await inStore("readonly", (s) => s.get(name)).catch(() => null);
      if (bytes) found[name] = bytes;
    }
    return found;
  };
  const WHERE = { "ml-100k.zip": ["MovieLens 100K", "fetch_movielens"], "hetrec2011-lastfm-2k.zip": ["Last.fm 2K", "fetch_lastfm"] };
  let offered = false;
  const offerData = () => {
    if (offered) return;
    offered = true;
    for (const name of told.data) {
      const [title, fetch] = WHERE[name], status = make("p"), input = make("input", { type: "file", accept: ".zip" });
      status.setAttribute("role", "status");
      const forget = button("forget", "Forget this file", title, async () => {
        await inStore("readwrite", (s) => s.delete(name));
        delete files[name];
        end("Python starts anew.");
        tell();
      });
      const tell = () => {
        forget.hidden = !files[name];
        status.textContent = files[name]
          ? `The cells see your own ${title}, verified; it stays in this browser.`
          : `${title} may not be passed on, so the cells see a generated look-alike: as many rows, counted alike, and nobody's. Numbers, titles and pictures differ from those of the book; a cell that looks for a film by its name fails, and a check that asks for a number of the real set refuses a right answer.`;
      };
      input.addEventListener("change", () => alone(async () => {
        status.textContent = "The file is verified.";
        const bytes = await input.files[0].arrayBuffer(), started = await boot();
        const { said } = started.error ? { said: started.error } : await ask("data", { name, bytes });
        if (said) return (status.textContent = said);
        await inStore("readwrite", (s) => s.put(bytes, name));
        files[name] = bytes;
        end("Python starts anew with your file.");
        tell();
      }));
      tell();
      const box = make("aside", { className: "live-data admonition note" }, make("p", { className: "admonition-title" }, "The ratings that the cells see"), status,
        make("label", {}, `Choose your ${name}: `, input), " ", forget);
      box.setAttribute("aria-label", `${title}: what the cells see`);
      (cells.find((cell) => cell.box && cell.code().includes(fetch)) ?? cells.find((cell) => cell.box)).box.before(box);
    }
  };

  // -- the whole page ------------------------------------------------------------------------------------
  const take = async () => {
    const notebook = await (await fetch(new URL(`work/${told.page}.ipynb?v=${told.version}`, base))).json();
    const kept = recall(told.page);
    for (const cell of notebook.cells) if (cell.id in kept.answers) cell.source = kept.answers[cell.id];
    for (const [number, code] of Object.entries(kept.edits)) {
      notebook.cells.push({ cell_type: "code", id: `edit-${number}`, metadata: {}, execution_count: null, outputs: [],
        source: `# Cell ${Number(number) + 1} of the chapter, as you changed it\n${code}` });
    }
    save(`${told.page}.ipynb`, JSON.stringify(notebook, null, 1), "application/x-ipynb+json");
  };
  const all = () => {
    const last = cells.filter((cell) => cell.box).at(-1);
    return runTo(last);
  };
  const restart = button("restart", "Restart Python", "", () => end("Python starts anew with the next press."));
  document.querySelector(".live-page").insertBefore(restart, document.querySelector(".live-page small"));

  for (const [number, text] of Object.entries(recall(told.page).edits)) {
    const cell = cellOf(Number(number));
    if (cell) { cell.edit(text); cell.reset.hidden = false; say(cell, "As you changed it"); }
  }
  return {
    run: (number) => runTo(cellOf(number)),
    edit: (number) => { const cell = cellOf(number); cell.edit(); cell.editor.box.focus(); },
    restore: () => {},
    answer, all, take,
  };
}
