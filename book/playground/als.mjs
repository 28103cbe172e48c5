// Alternating least squares on a matrix small enough to see: the arithmetic of the
// playground, without a view. It solves what `ExplicitALS` and `ImplicitALS` of the
// library `als_course` solve, place by place instead of with sparse matrices.
//
// ratings: an array of rows, one a user; null is a hole.
// settings: { model: "explicit" | "implicit", lambda, weighted,
//             alpha, confidence: "alpha*r" | "1+alpha*r" } as in the library.

const TINY = 1e-13; // smallest over largest pivot; below it hardly a digit holds

// The made-up factors of the chapter on factorising by hand: the start of seed 0.
const MADE_UP = {
  users: [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]],
  items: [[0.8, 0.2], [0.1, 0.9], [0.7, 0.3], [0.3, 0.7]],
};

// Pseudo-random numbers from 0 to 1: mulberry32 by Tommy Ettinger, public domain.
export function mulberry32(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

// Factors to begin with, near normal with variance 1/k: twelve uniform numbers less 6,
// which takes additions only and so gives the same bits in every browser. Up to
// `most` users and items of 3 factors are drawn always, so nobody's first factors
// change when a user, an item or a factor is added.
export function start(seed, users, items, k, most = 6) {
  const uniform = mulberry32(seed);
  const normal = () => {
    let sum = -6;
    for (let n = 0; n < 12; n++) sum += uniform();
    return sum / Math.sqrt(k);
  };
  const draw = (rows, chosen) =>
    Array.from({ length: most }, (_, row) =>
      Array.from({ length: 3 }, (_, factor) => {
        const value = normal();
        return (seed === 0 && chosen[row]?.[factor]) || value;
      }).slice(0, k)).slice(0, rows);
  return { users: draw(users, MADE_UP.users), items: draw(items, MADE_UP.items) };
}

export const transpose = (matrix) =>
  matrix.length ? matrix[0].map((_, column) => matrix.map((row) => row[column])) : [];

export const dot = (a, b) => a.reduce((sum, value, f) => sum + value * b[f], 0);

// What a place asks for, and how much it counts: { target, weight }.
export function place(rating, settings) {
  const hole = rating === null;
  if (settings.model === "explicit") return { target: rating ?? 0, weight: hole ? 0 : 1 };
  const one = settings.confidence === "1+alpha*r" ? 1 : 0;
  const weight = hole ? 1 : one + settings.alpha * Math.abs(rating);
  return { target: rating > 0 ? 1 : 0, weight };
}

// How many ratings of a row ask for factors; a hole is null, and null > 0 is false.
export const count = (row, settings) =>
  row.filter((r) => (settings.model === "explicit" ? r !== null : r > 0)).length;

const penalty = (row, settings) =>
  settings.lambda * (settings.weighted ? count(row, settings) : 1);

// Solve A x = b by Cholesky's method, A symmetric; null if A is singular.
function solve(A, b) {
  const k = b.length;
  const L = A.map((row) => row.slice());
  for (let i = 0; i < k; i++) {
    for (let j = 0; j <= i; j++) {
      const rest = A[i][j] - dot(L[i].slice(0, j), L[j]);
      if (i === j && !(rest > 0)) return null;
      L[i][j] = i === j ? Math.sqrt(rest) : rest / L[j][j];
    }
  }
  const pivots = L.map((row, i) => row[i] ** 2);
  if (!(Math.min(...pivots) > TINY * Math.max(...pivots))) return null;
  const x = b.slice();
  for (let i = 0; i < k; i++) x[i] = (x[i] - dot(L[i].slice(0, i), x)) / L[i][i];
  for (let i = k - 1; i >= 0; i--) {
    for (let j = i + 1; j < k; j++) x[i] -= L[j][i] * x[j];
    x[i] /= L[i][i];
  }
  return x;
}

// Solve the factors of every row, those of the columns held fixed. For the items pass
// the transposed ratings. Rows that ask for nothing get zeros. Throws an error that
// carries `row` and `ratings` where a system is singular.
export function halfStep(ratings, fixed, settings) {
  return ratings.map((row, number) => {
    const k = fixed[0].length;
    const asking = count(row, settings);
    if (asking === 0) return Array(k).fill(0);
    const A = Array.from({ length: k }, () => Array(k).fill(0));
    const b = Array(k).fill(0);
    row.forEach((rating, column) => {
      const { target, weight } = place(rating, settings);
      const x = fixed[column];
      for (let i = 0; i < k; i++) {
        b[i] += weight * target * x[i];
        for (let j = 0; j < k; j++) A[i][j] += weight * x[i] * x[j];
      }
    });
    for (let i = 0; i < k; i++) A[i][i] += penalty(row, settings);
    const solved = solve(A, b);
    if (solved) return solved;
    throw Object.assign(new Error("singular"), { row: number, ratings: asking });
  });
}

// The objective, in its two parts; their sum is what `history_` records after a sweep.
export function objective(ratings, users, items, settings) {
  let error = 0;
  ratings.forEach((row, u) => row.forEach((rating, i) => {
    const { target, weight } = place(rating, settings);
    error += weight * (target - dot(users[u], items[i])) ** 2;
  }));
  const size = (rows, factors) => rows.reduce(
    (sum, row, n) => sum + penalty(row, settings) * dot(factors[n], factors[n]), 0);
  const penalties = size(ratings, users) + size(transpose(ratings), items);
  return { error, penalty: penalties, total: error + penalties };
}
