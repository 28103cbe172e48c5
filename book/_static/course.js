// What scrolls sideways can be reached with the keyboard, and nothing else is a stop.
document.addEventListener("DOMContentLoaded", () => {
  const boxes = document.querySelectorAll("pre, div.math, .output.text_html");
  const mark = () => {
    const wide = [...boxes].map((box) => box.scrollWidth > box.clientWidth);
    boxes.forEach((box, n) => { box.tabIndex = wide[n] ? 0 : -1; });
  };
  window.addEventListener("load", mark);
  window.addEventListener("resize", mark);
  document.addEventListener("toggle", mark, true);
  document.addEventListener("click", () => setTimeout(mark));
});

// The meaning of a glossary term appears beside it, for pointer and keyboard alike;
// Escape puts it away. Without a pointer the first tap shows it and the second follows
// the link. The definitions are part of the page.
document.addEventListener("DOMContentLoaded", () => {
  let shown = null;
  let leaving = 0;

  const hide = () => {
    clearTimeout(leaving);
    if (shown) shown.hidden = true;
    shown = null;
  };
  const hideSoon = () => {
    clearTimeout(leaving);
    leaving = setTimeout(hide, 200);
  };
  const show = (term, card) => {
    hide();
    card.hidden = false;
    shown = card;
    const [at, room] = [term.getBoundingClientRect(), document.documentElement];
    const left = Math.min(at.left, room.clientWidth - card.offsetWidth - 8);
    const below = at.bottom + card.offsetHeight + 8 < room.clientHeight;
    const top = below ? at.bottom + 4 : at.top - card.offsetHeight - 4;
    card.style.left = `${Math.max(8, left)}px`;
    card.style.top = `${Math.max(8, top)}px`;
  };

  for (const term of document.querySelectorAll('.bd-article a[href*="#term-"]')) {
    const card = document.getElementById(`card-${term.hash.slice(1)}`);
    if (!card) continue;
    document.body.append(card);
    term.setAttribute("aria-describedby", card.id);
    for (const event of ["mouseenter", "focus"]) {
      term.addEventListener(event, () => show(term, card));
    }
    for (const event of ["mouseleave", "blur"]) term.addEventListener(event, hideSoon);
    let seen = false; // whether the card was there when the finger came down
    term.addEventListener("pointerdown", () => { seen = shown === card; });
    term.addEventListener("click", (event) => {
      if (seen || !matchMedia("(hover: none)").matches) return;
      event.preventDefault();
      show(term, card);
    });
    card.addEventListener("mouseenter", () => clearTimeout(leaving));
    card.addEventListener("mouseleave", hideSoon);
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  document.addEventListener("scroll", hide, { passive: true });
});

// How far the reader is, in the bar at the top: the time on the page's own box, less what
// has been scrolled past.
document.addEventListener("DOMContentLoaded", () => {
  const minutes = Number(document.querySelector("nav.here")?.dataset.minutes);
  const article = document.querySelector(".bd-article");
  const bar = document.querySelector(".header-article-items__start");
  if (!minutes || !bar) return;
  const place = document.createElement("p");
  place.className = "left-to-read";
  bar.append(place);
  const chapter = document.querySelector("nav.here").textContent.match(/chapter (.*)/)?.[1];
  let waiting = false;
  const say = () => {
    waiting = false;
    const box = article.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (innerHeight - box.top) / box.height));
    const left = box.top > 0 ? minutes : Math.round(minutes * (1 - share));
    const time = left ? `about ${left} minute${left > 1 ? "s" : ""} left` : "the end";
    place.textContent = chapter ? `${chapter}, ${time}` : time;
  };
  addEventListener("scroll", () => {
    if (!waiting) requestAnimationFrame(say);
    waiting = true;
  }, { passive: true });
  say();
});

// Left and right lead to the previous and the next page, where nothing else wants them.
document.addEventListener("keydown", (event) => {
  const side = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  if (!side || event.target !== document.body || event.defaultPrevented) return;
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = document.querySelector(`link[rel="${side}"]`);
  if (link) location.href = link.href;
});

// Each button that unfolds or copies says what.
addEventListener("load", () => {
  document.querySelectorAll("button.toggle-button").forEach((button) => {
    const title = button.closest(".admonition-title");
    const what = title?.firstChild.textContent.trim();
    const name = () => button.setAttribute("aria-label", `${button.dataset.toggleHint}: ${what}`);
    if (!what) return;
    name();
    title.addEventListener("click", () => setTimeout(name));
  });
  document.querySelectorAll("button.copybtn").forEach((button, n) => {
    button.setAttribute("aria-label", `Copy code cell ${n + 1}`);
  });
});

// A figure can be enlarged: by a button beside it, or by a tap on it.
document.addEventListener("DOMContentLoaded", () => {
  const images = document.querySelectorAll(".bd-article :is(.cell_output, figure) img");
  if (!images.length || !window.HTMLDialogElement) return;
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  dialog.innerHTML = '<form method="dialog"><button>Close</button></form><div tabindex="0"></div>';
  document.body.append(dialog);
  const room = dialog.lastChild;
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  images.forEach((image) => {
    const open = () => {
      const copy = image.cloneNode();
      ["width", "height", "loading"].forEach((name) => copy.removeAttribute(name));
      room.replaceChildren(copy);
      dialog.setAttribute("aria-label", "Figure, enlarged");
      dialog.showModal();
    };
    const number = image.closest("figure")?.querySelector(".caption-number")?.textContent.trim();
    const button = document.createElement("button");
    button.className = "enlarge";
    button.setAttribute("aria-label", `Enlarge ${number || "the figure"}`);
    button.addEventListener("click", open);
    image.addEventListener("click", open);
    image.after(button);
  });
});

// Only the print that was asked for without answers lacks them.
addEventListener("afterprint", () => document.body.classList.remove("no-answers"));
