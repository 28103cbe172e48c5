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
// Escape puts it away. The definitions are part of the page.
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
    card.addEventListener("mouseenter", () => clearTimeout(leaving));
    card.addEventListener("mouseleave", hideSoon);
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  document.addEventListener("scroll", hide, { passive: true });
});
