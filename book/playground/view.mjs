// What the playground shows and does. The page puts this below als.mjs, in one module:
// a page that is opened as a file may not import one module from another.

const TOY = [[5, null, 3, null], [4, 4, null, 2], [1, null, 5, null]];
const VALUES = {
  lambda: [0, 0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
  alpha: [0.1, 0.2, 0.5, 1, 2, 5, 10, 40],
};
const MOST = 6; // users, and films
const LIKE = 4; // so many stars are a like
const LONGEST = 500; // sweeps of one run

const $ = (id) => document.getElementById("pg-" + id);
const on = (id, event, action) => $(id).addEventListener(event, action);
const range = (n) => [...Array(n).keys()];
const film = (i) => "ABCDEF"[i];
const stars = (n) => `${n} star${n === 1 ? "" : "s"}`;
const fixed = (x, digits = 2) =>
  x.toFixed(digits).replace(/^-(0\.0*)$/, "$1").replace("-", "−");
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

const settings = {}; // filled from the controls by toy()
const state = {
  k: 2, seed: 0, ratings: [], users: [], items: [],
  history: [], // { kind, total } after each half-step; the first is the start
  before: [], // the history that a reset ended
  ways: [], // { users, items } after each half-step
  brush: 5, // the stars that a click gives
  at: [0, 0], // the place that Tab leads to
};
let shown; // the factors as drawn, on their way to those of the state
let frame, timer;

const implicit = () => settings.model === "implicit";
// What is fitted: in the model of likes, fewer stars are no likes.
const data = () => state.ratings.map((row) =>
  row.map((r) => (implicit() && r < LIKE ? null : r)));
const now = () => objective(data(), state.users, state.items, settings);
const say = (text) => { $("status").textContent = text; };

// What happens

// Begin a new curve where the factors are: for another objective, or another start.
function begin(text, before = []) {
  stop();
  state.before = before;
  state.history = [{ kind: "start", total: now().total }];
  state.ways = [{ users: state.users, items: state.items }];
  render();
  say(`${text} Objective ${fixed(now().total, 4)}.`);
}

function reset(text, before = state.history) {
  const { ratings, seed, k } = state;
  Object.assign(state, start(seed, ratings.length, ratings[0].length, k));
  begin(text ?? `Start: ${seed ? "seed " + seed : "the made-up factors"}.`, before);
}

// Everything as the page first had it: ratings, factors and every control.
function toy() {
  for (const control of $("toy").closest("section").querySelectorAll("input, select")) {
    if (control.localName === "select") control.selectedIndex = 0;
    else if (control.type === "range") control.value = control.defaultValue;
    else control.checked = control.defaultChecked;
  }
  Object.assign(settings, { model: "explicit", weighted: false, confidence: "alpha*r" });
  for (const name of ["lambda", "alpha"]) slide(name);
  $("only-implicit").hidden = $("axes-choice").hidden = true;
  Object.assign(state, { ratings: TOY.map((row) => [...row]), k: 2, seed: 0, at: [0, 0], brush: 5 });
  reset("The toy of the course: stars, 2 factors, λ = 0.2, the made-up factors.", []);
}

// Read a slider into the settings, and write its value beside it.
function slide(name) {
  settings[name] = VALUES[name][$(name).value];
  $(name + "-value").textContent = settings[name];
  $(name).setAttribute("aria-valuetext", settings[name]);
}

// One half-step; false, and the reason said, where there is none.
function solveSide(kind) {
  const user = kind === "user";
  const rows = user ? data() : transpose(data());
  if (!rows.some((row) => count(row, settings))) {
    say(implicit() ? "Nothing has 4 or 5 stars: there is no like to learn from."
      : "There is no rating to learn from. Click a place.");
    return false;
  }
  try {
    if (user) state.users = halfStep(rows, state.items, settings);
    else state.items = halfStep(rows, state.users, settings);
  } catch (error) {
    if (error.message !== "singular") throw error;
    const name = user ? `user ${error.row + 1}` : `film ${film(error.row)}`;
    say(`The system of ${name} is singular (ratings: ${error.ratings}, factors: ` +
      `${state.k}). Raise λ or lower k.`);
    return false;
  }
  state.history.push({ kind, total: now().total });
  state.ways.push({ users: state.users, items: state.items });
  return true;
}

// The fall of the objective over the last half-steps.
function fall(steps) {
  const [old, total] = [-1 - steps, -1].map((n) => fixed(state.history.at(n).total, 4));
  return old === total ? `objective ${total}, as before` : `objective ${old} → ${total}`;
}

function take(text, ...kinds) {
  stop();
  const done = kinds.every(solveSide);
  render();
  if (done) say(`${text}: ${fall(kinds.length)}.`);
}

function stop() {
  clearTimeout(timer);
  timer = null;
  $("run").textContent = "Run";
}

// Sweep until a sweep gains next to nothing, slowly at first so that it can be watched.
function run() {
  if (timer) { stop(); say("Stopped."); return; }
  let steps = 0;
  const half = () => {
    if (!solveSide(steps++ % 2 ? "item" : "user")) { stop(); return false; }
    const [old, total] = [-3, -1].map((n) => state.history.at(n)?.total);
    const settled = steps % 2 === 0 && old - total <= 1e-8 * old;
    if (!settled && steps < 2 * LONGEST) return true;
    stop();
    say(`${settled ? "Settled" : "Still falling"} after ${steps / 2} sweeps: ${fall(steps)}.`);
    return false;
  };
  const some = (pause) => {
    let most = calm() ? Infinity : pause < 40 ? 8 : 1; // late ones are small
    let more;
    do more = half(); while (more && --most > 0);
    render(pause);
    if (more) timer = setTimeout(some, pause, Math.max(16, 0.9 * pause));
  };
  say("Running.");
  $("run").textContent = "Stop";
  some(450);
}

function change(row, column, rating) {
  state.ratings[row][column] = rating;
  begin(`User ${row + 1}, film ${film(column)}: ${rating ? stars(rating) : "cleared"}.`);
}

// Whoever stays keeps ratings and factors; who is new begins as the seed says.
function resize(addUsers, addFilms) {
  const users = state.ratings.length + addUsers;
  const films = state.ratings[0].length + addFilms;
  const name = addUsers ? "users" : "films";
  if (Math.max(users, films) > MOST) { say(`${MOST} ${name} are the most.`); return; }
  if (Math.min(users, films) < 1) { say(`One of the ${name} has to stay.`); return; }
  const drawn = start(state.seed, users, films, state.k);
  state.ratings = range(users).map((u) =>
    range(films).map((i) => state.ratings[u]?.[i] ?? null));
  state.users = drawn.users.map((row, u) => state.users[u] ?? row);
  state.items = drawn.items.map((row, i) => state.items[i] ?? row);
  state.at = [Math.min(state.at[0], users - 1), Math.min(state.at[1], films - 1)];
  begin(`Users: ${users}, films: ${films}.`);
}

// Tables: built when their shape changes and filled at every step, so the focus stays

const cells = (id, action) => $(id).querySelectorAll("[data-at]").forEach((cell) =>
  action(cell, ...placeOf(cell)));
const placeOf = (cell) => cell.dataset.at.split(",").map(Number);
const current = () => $("ratings").querySelector(`[data-at="${state.at}"]`);

function build() {
  const users = state.ratings.map((_, u) => `user ${u + 1}`);
  const films = state.ratings[0].map((_, i) => `film ${film(i)}`);
  const factors = range(state.k).map((f) => `factor ${f + 1}`);
  const table = (id, caption, rows, columns, attributes = "") => {
    const head = columns.map((name) => `<th scope="col">${name}</th>`).join("");
    const body = rows.map((name, r) => `<tr><th scope="row">${name}</th>` + columns.map(
      (_, c) => `<td data-at="${r},${c}"${attributes}></td>`).join("") + "</tr>").join("");
    $(id).innerHTML = `<caption>${caption}</caption><thead><tr><td></td>${head}</tr>` +
      `</thead><tbody>${body}</tbody>`;
  };
  table("ratings", "<i>R</i>, the ratings", users, films, ' role="gridcell"');
  table("users", "<i>U</i>, users", users, factors);
  table("items", "<i>V</i>ᵀ, items", factors, films);
  table("predicted", "<i>U V</i>ᵀ, predictions", users, films, ' role="gridcell"');
  $("toy").closest("section").classList.toggle("pg-many", films.length > 4);
}

function fill() {
  const fitted = data();
  cells("ratings", (cell, u, i) => {
    const [rating, hole] = [state.ratings[u][i], fitted[u][i] === null];
    const confidence = +place(fitted[u][i], settings).weight.toFixed(1);
    const like = hole ? "no like" : "a like";
    cell.className = hole ? "pg-hole" : "pg-stars" + rating;
    cell.tabIndex = cell === current() ? 0 : -1;
    cell.innerHTML = (implicit() && !hole ? "♥ " : "") + (rating ?? "?") +
      (implicit() ? `<small>c = ${confidence}</small>` : "");
    cell.setAttribute("aria-label", (rating ? stars(rating) : "no rating") +
      (implicit() ? `, ${like}, confidence ${confidence}` : ""));
  });
  cells("users", (cell, u, f) => { cell.textContent = fixed(state.users[u][f]); });
  cells("items", (cell, f, i) => { cell.textContent = fixed(state.items[i][f]); });
  cells("predicted", (cell, u, i) => {
    const { target, weight } = place(fitted[u][i], settings);
    const value = dot(state.users[u], state.items[i]);
    const error = weight ? value - target : 0;
    cell.className = (fitted[u][i] === null ? "pg-hole " : "") +
      (error > 0 ? "pg-high" : "pg-low");
    cell.style.setProperty("--error", Math.min(1, Math.sqrt(Math.abs(error) / 2)));
    const sign = error >= 0.005 ? "+" : "";
    cell.tabIndex = `${[u, i]}` === `${state.at}` ? 0 : -1;
    cell.innerHTML = `${fixed(value)}<small>${weight ? sign + fixed(error) : "hole"}</small>`;
  });
  $("legend").textContent = "Under each prediction: its distance from " + (implicit()
    ? "the preference, 1 at a like and 0 in a dashed frame"
    : "the rating; a dashed frame is a hole, with nothing to be far from") +
    ". Plus and orange: too high. Minus and blue: too low.";
  const { error, penalty: size, total } = now();
  $("parts").textContent = `Now ${fixed(total, 4)}: ${implicit() ? "weighted " : ""}` +
    `squared errors ${fixed(error, 4)}, penalty ${fixed(size, 4)}.`;
}

// Mark the row and the column behind one prediction, and write their product out.
function point([row, column] = state.at) {
  const mark = (id, test) => cells(id, (cell, r, c) =>
    cell.classList.toggle("pg-here", test(r, c)));
  mark("users", (u) => u === row);
  mark("items", (_, i) => i === column);
  mark("predicted", (u, i) => u === row && i === column);
  const [x, y] = [state.users[row], state.items[column]];
  const number = (value) => (value < 0 ? `(${fixed(value)})` : fixed(value));
  $("dot").textContent = `User ${row + 1}, film ${film(column)}: ` + x.map((value, f) =>
    `${number(value)} · ${number(y[f])}`).join(" + ") + ` = ${fixed(dot(x, y))}`;
}

// Pictures

// A few round numbers between low and high.
function ticks(low, high) {
  const power = 10 ** Math.floor(Math.log10((high - low) / 3));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => (high - low) / s <= 5);
  const first = Math.ceil(low / step);
  return range(Math.floor(high / step) - first + 1)
    .map((n) => +((first + n) * step).toPrecision(6));
}

const label = (x, y, text, anchor = "middle", more = "") =>
  `<text x="${x}" y="${y}" text-anchor="${anchor}"${more}>${text}</text>`;
const square = (x, y, r) =>
  `<rect class="pg-user" x="${x - r}" y="${y - r}" width="${2 * r}" height="${2 * r}"/>`;
const circle = (x, y, r) => `<circle class="pg-item" cx="${x}" cy="${y}" r="${r}"/>`;
const path = (points, name) =>
  `<path class="${name}" d="M${points.map((p) => p.join(" ")).join("L")}"/>`;

function drawPlane() {
  const line = state.k === 1; // then everybody has a height of their own
  const [a, b] = state.k === 3 ? $("axes").value.split(",").map(Number) : [0, 1];
  const xy = (row) => [row[a], row[b] ?? 0];
  const every = [[0, 0], ...shown.users.map(xy), ...shown.items.map(xy)];
  const [xs, ys] = [0, 1].map((c) => every.map((p) => p[c]));
  const extent = (v) => Math.max(...v) - Math.min(...v);
  const span = Math.max(0.5, extent(xs), extent(ys)) * 1.25; // one scale for both axes
  const low = (v) => (Math.min(...v) + Math.max(...v) - span) / 2;
  const [left, bottom] = [low(xs), low(ys)];
  const X = (x) => 46 + ((x - left) / span) * 270;
  const Y = (y) => 276 - ((y - bottom) / span) * 270;
  let svg = '<clipPath id="pg-box"><rect x="46" y="6" width="270" height="270"/></clipPath>' +
    path([[46, Y(0)], [316, Y(0)]], "pg-axis") + label(181, 310, `factor ${a + 1}`);
  for (const t of ticks(left, left + span)) svg += label(Math.min(X(t), 306), 293, fixed(t, 1));
  if (!line) {
    svg += path([[X(0), 6], [X(0), 276]], "pg-axis") +
      label(-141, 12, `factor ${b + 1}`, "middle", ' transform="rotate(-90)"');
    for (const t of ticks(bottom, bottom + span)) svg += label(40, Y(t) + 4, fixed(t, 1), "end");
  }
  for (const [side, up, mark] of [["users", 1, square], ["items", -1, circle]]) {
    shown[side].forEach((row, n) => {
      const to = ([x, y]) => [X(x), Y(y) - (line ? 18 * up * (n + 1) : 0)];
      const [x, y] = xy(row);
      const [px, py] = to([x, y]);
      const far = Math.hypot(x, y);
      // Names of users stand outwards, those of films beside, so that they part.
      const [dx, dy] = line ? [x < 0 ? -1 : 1, 0] : far < 1e-3 ? [0, up]
        : up > 0 ? [x / far, y / far] : [y / far, -x / far];
      const way = state.ways.slice(0, 60).flatMap((f) => (f[side][n] ? [to(xy(f[side][n]))] : []));
      svg += `<g class="pg-${side}">${path([...way.slice(0, -1), [px, py]], "pg-way")}` +
        (up > 0 || line ? path([to([0, 0]), [px, py]], "pg-ray") : "") + mark(px, py, 5.5) +
        label(px + 15 * dx, py - 15 * dy + 5, up > 0 ? n + 1 : film(n)) + "</g>";
    });
  }
  $("plane").innerHTML = svg;
  const list = (side, name) => state[side].map((row, n) =>
    `${name(n)} at ${row.map((x) => fixed(x)).join(", ")}`).join("; ");
  $("plane").setAttribute("aria-label", "Factors as points: " +
    list("users", (u) => `user ${u + 1}`) + "; " + list("items", (i) => `film ${film(i)}`));
}

function drawChart() {
  const { history, before } = state;
  const height = (entry) => Math.log10(Math.max(1e-6, entry.total)); // no log of 0
  const heights = [...history, ...before].map(height);
  const [least, most] = [Math.min(...heights), Math.max(...heights)];
  const half = Math.max(0.4, 0.55 * (most - least)); // room for two round numbers
  const [low, high] = [(least + most) / 2 - half, (least + most) / 2 + half];
  const steps = Math.max(6, history.length - 1, before.length - 1);
  const X = (n) => 52 + (Math.log(n + 1) / Math.log(steps + 1)) * 262;
  const Y = (h) => 276 - ((h - low) / (high - low)) * 262;
  const powers = range(10).map((n) => 10 ** (n - 6));
  const steep = high - low > 3;
  const marks = (steep ? [1] : [1, 2, 5])
    .flatMap((m) => powers.map((p) => +(m * p).toPrecision(1)))
    .filter((t) => Math.log10(t) > low && Math.log10(t) < high);
  let svg = path([[52, 14], [52, 276], [314, 276]], "pg-axis") + label(183, 310, "half-steps");
  for (const t of marks) {
    const y = Y(Math.log10(t));
    svg += label(47, y + 4, t, "end") + path([[52, y], [314, y]], "pg-rule");
  }
  for (const t of [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]) {
    if (t <= steps) svg += label(X(t), 293, t);
  }
  for (const [entries, name] of [[before, "pg-before"], [history, "pg-line"]]) {
    if (entries.length > 1) svg += path(entries.map((e, n) => [X(n), Y(height(e))]), name);
  }
  history.forEach((entry, n) => {
    if (history.length > 80 && n < history.length - 2) return;
    const mark = { user: square, item: circle }[entry.kind];
    const [x, y] = [X(n), Y(height(entry))];
    svg += mark ? mark(x, y, 4) : path([[x - 5, y], [x + 5, y]], "pg-line");
  });
  svg += square(196, 20, 4) + label(208, 25, "users solved", "start") +
    circle(196, 38, 4) + label(208, 43, "items solved", "start");
  if (before.length > 1) {
    svg += path([[186, 56], [204, 56]], "pg-before") + label(208, 61, "before the reset", "start");
  }
  $("chart").innerHTML = svg;
  $("chart").setAttribute("aria-label", `Objective after ${history.length - 1} half-steps; ` +
    `the last values: ${history.slice(-6).map((entry) => fixed(entry.total)).join(", ")}`);
}

// Show the state. Points glide to their places, unless the reader wants no motion.
function render(pause = 450) {
  const { users, items } = state;
  const shape = [users.length, items.length, state.k].join();
  if (render.shape !== shape) { render.shape = shape; shown = null; build(); }
  fill();
  point();
  drawChart();
  for (const id of ["users", "items", "predicted"]) { // a table that scrolls can be reached
    const box = $(id).parentElement;
    box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1;
  }
  cancelAnimationFrame(frame);
  const [from, began] = [shown, performance.now()];
  const glide = (time) => {
    const part = from && !calm() ? Math.min(1, Math.max(0, time - began) / (0.9 * pause)) : 1;
    const between = (old, rows) => (part === 1 ? rows : rows.map((row, n) =>
      row.map((x, f) => old[n][f] + part * part * (3 - 2 * part) * (x - old[n][f]))));
    shown = { users: between(from?.users, users), items: between(from?.items, items) };
    drawPlane();
    if (part < 1) frame = requestAnimationFrame(glide);
  };
  glide(began);
}

// Listeners

$("brush").innerHTML += [1, 2, 3, 4, 5].map((n) => `<label class="pg-stars${n}"><input ` +
  `type="radio" name="pg-brush" value="${n}"${n === 5 ? " checked" : ""}> ${n}</label>`).join("");

const choose = (name, action) => document.getElementsByName("pg-" + name)
  .forEach((input) => input.addEventListener("change", () => action(input.value)));
choose("brush", (value) => { state.brush = +value; });
choose("k", (value) => {
  state.k = +value;
  $("axes-choice").hidden = state.k < 3;
  reset(`${value} factor${state.k > 1 ? "s" : ""}, from the start.`);
});
choose("model", (value) => {
  settings.model = value;
  $("only-implicit").hidden = !implicit();
  reset(implicit() ? "Likes are 4 and 5 stars." : "Stars, and holes that say nothing.", []);
});

for (const name of ["lambda", "alpha"]) {
  on(name, "input", () => { slide(name); begin(`${name} = ${settings[name]}.`); });
}
on("weighted", "change", (event) => {
  settings.weighted = event.target.checked;
  begin(settings.weighted ? "The penalty counts the ratings." : "One penalty for all.");
});
on("confidence", "change", (event) => {
  settings.confidence = event.target.value;
  begin(`The confidence of a like is ${settings.confidence}.`);
});
on("axes", "change", drawPlane);

for (const [id, action] of Object.entries({
  "solve-users": () => take("Users solved", "user"),
  "solve-items": () => take("Items solved", "item"),
  sweep: () => take("Sweep", "user", "item"),
  run,
  reset: () => reset(),
  seed: () => { state.seed += 1; reset(); },
  toy,
  "add-user": () => resize(1, 0),
  "remove-user": () => resize(-1, 0),
  "add-film": () => resize(0, 1),
  "remove-film": () => resize(0, -1),
})) on(id, "click", action);

// A click, Enter or Space gives the stars of the brush, or takes them away again.
const paint = (u, i) =>
  change(u, i, state.ratings[u][i] === state.brush ? null : state.brush);
const cellOf = (event) => event.target.closest("[data-at]");

// The place that a key leads to, in either grid.
function walk({ key, ctrlKey }) {
  const [u, i] = state.at;
  const [down, right] = [state.ratings.length - 1, state.ratings[0].length - 1];
  const [row, column] = {
    ArrowUp: [u - 1, i], ArrowDown: [u + 1, i], ArrowLeft: [u, i - 1], ArrowRight: [u, i + 1],
    Home: [ctrlKey ? 0 : u, 0], End: [ctrlKey ? down : u, right],
  }[key] ?? [];
  if (row === undefined) return null;
  return [Math.max(0, Math.min(down, row)), Math.max(0, Math.min(right, column))];
}

for (const id of ["ratings", "predicted"]) {
  on(id, "focusin", (event) => {
    if (!cellOf(event)) return;
    state.at = placeOf(cellOf(event));
    for (const each of ["ratings", "predicted"]) {
      cells(each, (cell, ...at) => { cell.tabIndex = `${at}` === `${state.at}` ? 0 : -1; });
    }
    point();
  });
  on(id, "keydown", (event) => {
    const { key, altKey, metaKey, ctrlKey } = event;
    if (altKey || metaKey || (ctrlKey && !/Home|End/.test(key)) || !walk(event)) return;
    $(id).querySelector(`[data-at="${walk(event)}"]`).focus();
    event.preventDefault();
  });
}
on("ratings", "click", (event) => {
  cellOf(event)?.focus();
  if (cellOf(event)) paint(...state.at);
});
on("ratings", "keydown", (event) => {
  const { key, altKey, metaKey, ctrlKey } = event;
  const [u, i] = state.at;
  if (altKey || metaKey || ctrlKey) return;
  if (/^[1-5]$/.test(key)) change(u, i, +key);
  else if (["Delete", "Backspace", "0"].includes(key)) change(u, i, null);
  else if (key === "Enter" || key === " ") paint(u, i);
  else return;
  event.preventDefault();
});
for (const id of ["ratings", "predicted"]) {
  on(id, "mouseover", (event) => { if (cellOf(event)) point(placeOf(cellOf(event))); });
  on(id, "mouseleave", () => point());
}

// The state in the page's address, so that a link leads to what is on the screen: the
// model, k, seed, penalty, confidence, and the stars of each user, "-" for a hole.

const CHOICES = () => [...$("toy").closest("section").querySelectorAll("input, select")]
  .filter((control) => control.name !== "pg-brush" && control.id !== "pg-axes");

function remember() {
  const chosen = CHOICES().filter((c) => !/radio|checkbox/.test(c.type) || c.checked)
    .map((c) => `${c.id || c.name}=${c.value}`.replace("pg-", ""));
  const rows = state.ratings.map((row) => row.map((r) => r ?? "-").join("")).join(".");
  history.replaceState(null, "", `#${new URLSearchParams(
    [...chosen.map((pair) => pair.split("=")), ["seed", state.seed], ["ratings", rows]])}`);
}

function recall() {
  const given = new URLSearchParams(location.hash.slice(1));
  const rows = (given.get("ratings") ?? "").split(".");
  const size = rows[0].length;
  const valid = /^\d{1,4}$/.test(given.get("seed")) && rows.length <= MOST && size <= MOST &&
    size > 0 && rows.every((row) => /^[1-5-]+$/.test(row) && row.length === size);
  if (!valid) return;
  for (const control of CHOICES()) {
    const value = given.get((control.id || control.name).replace("pg-", ""));
    if (control.type === "radio") { if (value === control.value) control.click(); }
    else if (control.type === "checkbox") { if (value) control.click(); }
    else if (value !== null) {
      control.value = value;
      control.dispatchEvent(new Event(control.type === "range" ? "input" : "change"));
    }
  }
  state.ratings = rows.map((row) => [...row].map((r) => (r === "-" ? null : +r)));
  state.seed = +given.get("seed");
  reset("As the link says.", []);
}

toy();
recall();
on("link", "click", () => {
  remember();
  navigator.clipboard?.writeText(location.href);
  say("The address of this page now leads to this state.");
});
document.getElementById("pg").classList.add("pg-ready");
