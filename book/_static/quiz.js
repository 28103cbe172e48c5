// Questions that check themselves. A quiz is an admonition with a list of options and a
// folded list of answers in the same order; that is what a reader without scripts, or of
// the notebook, sees. Here the options become radio buttons with a button to check.
(() => {
  const content = (item) => (item.querySelector(":scope > p") ?? item).innerHTML;

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const build = (quiz, number) => {
    const list = quiz.querySelector(":scope > ul");
    const answers = [...quiz.querySelectorAll(".dropdown li")];
    if (!list || list.children.length !== answers.length) return;

    const question = [...quiz.children].filter((child) => child.matches("p"));
    question.forEach((part, place) => (part.id ||= `quiz-${number}-${place}`));
    const group = make("div", { className: "quiz-options" });
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-labelledby", question.map((part) => part.id).join(" "));
    const said = make("div", { className: "quiz-said" });
    said.setAttribute("role", "status");
    const forget = () => {
      said.replaceChildren();
      delete said.dataset.right;
    };

    for (const item of list.children) {
      const button = make("input", { type: "radio", name: `quiz-${number}` });
      button.addEventListener("change", forget);
      group.append(make("label", {}, button, make("span", { innerHTML: content(item) })));
    }
    const all = quiz.querySelector(".dropdown");
    all.hidden = true; // until the reader has tried
    const check = make("button", { type: "button", textContent: "Check" });
    check.className = "quiz-check";
    check.addEventListener("click", () => {
      const buttons = [...group.querySelectorAll("input")];
      const chosen = buttons.findIndex((button) => button.checked);
      forget();
      if (chosen < 0) {
        said.append("Choose an answer first.");
        return;
      }
      all.hidden = false;
      said.dataset.right = answers[chosen].textContent.trim().startsWith("Right");
      said.append(make("p", { innerHTML: content(answers[chosen]) }));
      const right = said.dataset.right === "true";
      document.dispatchEvent(new CustomEvent("quiz", { detail: { number, right } }));
    });
    list.replaceWith(group, check, said);
  };

  const start = () => document.querySelectorAll(".admonition.quiz").forEach(build);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
