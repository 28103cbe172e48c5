// Pages that were read, and Python, without a network. Two headers put each page into a
// process of its own, which lets Stop reach a running cell.
const STORE = "als-VERSION";
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil((async () => {
  const old = (await caches.keys()).filter((name) => name.startsWith("als-") && name !== STORE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
})()));
const isolated = ({ body, status, statusText, headers }) => new Response(body, {
  status, statusText, headers: new Headers([...headers,
    ["Cross-Origin-Opener-Policy", "same-origin"], ["Cross-Origin-Embedder-Policy", "require-corp"]]),
});
self.addEventListener("fetch", (event) => {
  const { request } = event, { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin) return;
  event.respondWith((async () => {
    const cache = await caches.open(STORE);
    const kept = await cache.match(request, { ignoreSearch: false });
    if (kept && pathname.includes("/live/python-")) return isolated(kept);
    try {
      const answer = await fetch(request);
      if (answer.ok) event.waitUntil(cache.put(request, answer.clone()));
      return isolated(answer);
    } catch (error) {
      const other = kept ?? await cache.match(request, { ignoreSearch: true });
      if (other) return isolated(other);
      throw error;
    }
  })());
});
