// Opens the page without network: its own few files come from this device.
//
// The large files are not its business: the page checks them, and keeps them, itself.

importScripts("shell.js"); // SHELL: {version, files}, written when the page is built

const NAME = `lightcourse-shell-${SHELL.version}`;

self.addEventListener("install", (event) => {
  event.waitUntil(install());
  self.skipWaiting();
});

async function install() {
  const cache = await caches.open(NAME);
  await cache.addAll(SHELL.files.map((file) => new Request(file, { cache: "reload" })));
}

self.addEventListener("activate", (event) => event.waitUntil(takeOver()));

async function takeOver() {
  const old = (await caches.keys()).filter((name) => name.startsWith("lightcourse-shell-") && name !== NAME);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(NAME);
  return (await cache.match(request, { ignoreSearch: true })) ?? fetch(request);
}
