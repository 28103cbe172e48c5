// Buttons on what a reader can run, and what he has solved, kept in this browser alone.
// Python, and the script that drives it, are loaded at the first press.
(() => {
  const data = document.getElementById("live");
  if (!data) return;
  const told = JSON.parse(data.textContent);
  const base = new URL("./", document.currentScript.src);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const button = (name, text, about, press) => {
    const made = make("button", { type: "button", className: `live-${name}` }, text);
    if (about) made.append(make("span", { className: "live-hidden" }, ` ${about}`));
    made.addEventListener("click", press);
    return made;
  };

  // -- what is remembered of a page: edits, answers, what is solved ----------------------
  const KEY = "als-course:";
  const recall = (page) => ({
    edits: {}, answers: {}, solved: [], quizzes: [],
    ...JSON.parse(localStorage.getItem(KEY + page) ?? "{}"),
  });
  const remember = (page, change) => {
    const found = recall(page);
    change(found);
    localStorage.setItem(KEY + page, JSON.stringify(found));
  };
  const save = (name, text, type) => {
    const link = make("a", { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  document.addEventListener("quiz", ({ detail: { number, right } }) => {
    if (right) remember(told.page, (kept) => (kept.quizzes = [...new Set([...kept.quizzes, number])]));
  });

  // -- the map of the course ------------------------------------------------------------
  const tellProgress = () => {
    document.querySelectorAll(".live-done, .live-progress").forEach((old) => old.remove());
    let any = false;
    for (const [page, [exercises, quizzes]] of Object.entries(told.chapters)) {
      const kept = recall(page), link = document.querySelector(`.course-map a[href^="${page}.html"]`);
      if (!localStorage.getItem(KEY + page) || !link) continue;
      any = true;
      const done = `${kept.solved.length} of ${exercises} exercises, ${kept.quizzes.length} of ${quizzes} questions`;
      link.after(make("small", { className: "live-done" }, make("br"), done));
    }
    const table = document.querySelector("table.course-map");
    if (!any || !table) return;
    const everything = () => Object.fromEntries(Object.keys(told.chapters)
      .filter((page) => localStorage.getItem(KEY + page)).map((page) => [page, recall(page)]));
    const erase = () => {
      if (!confirm("Erase your answers, edits and progress in all chapters?")) return;
      Object.keys(everything()).forEach((page) => localStorage.removeItem(KEY + page));
      tellProgress();
    };
    (table.closest(".table-wrapper, .pst-scrollable-table-container") ?? table).after(make("div", { className: "live-bar live-progress" },
      make("span", {}, "What you have solved is kept in this browser alone."),
      button("export", "Export my progress", "", () =>
        save("als-course-progress.json", JSON.stringify(everything(), null, 1), "application/json")),
      button("erase", "Erase it", "", erase)));
  };
  if (told.chapters) return tellProgress();

  // -- the first press ------------------------------------------------------------------
  if (!told.python || !told.exercises || !location.protocol.startsWith("http") || !self.WebAssembly) return;
  const PENDING = "als-live-pending";
  let session = null;
  // A service worker lets pages work offline, and Stop keep the variables: the page must
  // come through it for that, so at the first press it is loaded once more.
  const throughServiceWorker = async (press) => {
    if (crossOriginIsolated || !navigator.serviceWorker || sessionStorage.getItem(PENDING)) return false;
    try {
      await navigator.serviceWorker.register(new URL("../../sw.js", base));
      await navigator.serviceWorker.ready;
    } catch {
      return false; // a browser that forbids them; Stop then starts Python anew
    }
    sessionStorage.setItem(PENDING, JSON.stringify({ page: told.page, press, y: scrollY }));
    location.reload();
    return true;
  };
  const press = async (...what) => {
    if (!session) {
      if (await throughServiceWorker(what)) return;
      session = import(new URL(`page.mjs?v=${told.version}`, base)).then(({ start }) =>
        start({ told, base, make, button, recall, remember, save }));
    }
    const { [what[0]]: act } = await session;
    act(what[1]);
  };

  const bar = (about, ...buttons) => {
    const made = make("div", { className: "live-bar" }, ...buttons);
    made.setAttribute("role", "group");
    made.setAttribute("aria-label", about);
    return made;
  };
  const cells = document.querySelectorAll('div.cell[id^="live-"]');
  for (const cell of cells) {
    const number = Number(cell.id.slice(5)), about = `cell ${number + 1}`;
    const input = cell.querySelector(".cell_input");
    (input.closest("details.hide") ?? input).after(bar(`Cell ${number + 1}`,
      button("run", "Run", about, () => press("run", number)),
      button("edit", "Edit", about, () => press("edit", number))));
  }
  for (const { label, title } of told.exercises) {
    const box = document.getElementById(label);
    box.append(bar(`Your answer to ${title}`, button("answer", "Answer here", `: ${title}`, () => press("answer", label))));
    if (recall(told.page).solved.includes(label)) box.classList.add("live-solved");
  }
  cells[0].before(make("div", { className: "live-bar live-page" },
    button("all", "Run all cells", "", () => press("all")),
    told.exercises.length ? button("take", "Take my work along", "", () => press("take")) : "",
    make("small", {}, `Python runs in your browser and nothing leaves it. The first press loads ${Math.round(told.bytes / 1e6)} MB.`)));

  const { edits } = recall(told.page);
  const pending = JSON.parse(sessionStorage.getItem(PENDING) ?? "null");
  if (pending?.page === told.page && pending.press) {
    sessionStorage.setItem(PENDING, "{}"); // once is enough
    scrollTo(0, pending.y);
    press(...pending.press);
  } else if (Object.keys(edits).length) press("restore");
})();
