// The questions of the page, one at a time beside the tool. The page puts this below
// view.mjs, in one module. Without it the questions stand below the tool, all of them.

// What a question begins with, other than the toy.
const SETUPS = {
  "one-factor-then-three": { k: 1 },
  "the-penalty-from-both-ends": { lambda: 10 },
  "no-penalty-at-all": { lambda: 0 },
  "the-same-stars-as-likes": { model: "implicit" },
};
const questions = [...document.querySelectorAll("#try-this > section")];
let asked = 0;

// A part of the page once more, without what must be there only once.
function copy(nodes) {
  const part = document.createElement("div");
  part.append(...nodes.map((node) => node.cloneNode(true)));
  part.querySelectorAll("[id]").forEach((node) => node.removeAttribute("id"));
  part.querySelectorAll(".headerlink, button").forEach((node) => node.remove());
  return part;
}

function ask(number, section = questions[number]) {
  asked = number;
  const answer = section.querySelector(".admonition");
  const text = [...section.children].filter((node) => node.localName === "p");
  const title = copy([...section.querySelector("h3").childNodes]).textContent;
  $("task-name").textContent = `Task ${number + 1} of ${questions.length}: ${title}`;
  $("task-text").replaceChildren(copy(text));
  $("task-answer").replaceChildren(
    copy([...answer.children].filter((node) => node.localName !== "button" && !node.matches(".admonition-title"))));
  show(false);
  $("task-previous").disabled = number === 0;
  $("task-next").disabled = number === questions.length - 1;
}

function show(visible) {
  $("task-answer").hidden = !visible;
  $("task-show").textContent = visible ? "Hide answer" : "Show answer";
  $("task-show").setAttribute("aria-expanded", visible);
}

function setUp() {
  toy();
  const { k, model, lambda } = SETUPS[questions[asked].id] ?? {};
  for (const [name, value] of Object.entries({ k, model })) {
    if (value) document.querySelector(`[name="pg-${name}"][value="${value}"]`).click();
  }
  if (lambda !== undefined) {
    $("lambda").value = VALUES.lambda.indexOf(lambda);
    $("lambda").dispatchEvent(new Event("input"));
  }
}

// In the column of the contents if the page shows one, else a drawer at its foot.
function putCard() {
  const side = document.querySelector(".bd-sidebar-secondary");
  const beside = side && getComputedStyle(side).display !== "none" && wide.matches;
  if (beside) side.append($("task"));
  else document.getElementById("pg").append($("task"));
  $("task").open = beside;
  $("task").classList.add("pg-ready");
}

const wide = matchMedia("(min-width: 1200px)");
wide.addEventListener("change", putCard);
on("task-setup", "click", setUp);
on("task-show", "click", () => show($("task-answer").hidden));
on("task-previous", "click", () => ask(asked - 1));
on("task-next", "click", () => ask(asked + 1));
ask(0);
putCard();
