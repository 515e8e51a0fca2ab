// Files that are whole, or refused: from this device where they are kept, else from the server.

const KEPT = "lightcourse-files";

// A file that cannot be used. Its message says what happened, and what to do.
export class LoadError extends Error {}

export const SILENT =
  "The server does not answer. Is lightcourse serve-demo running? Start it, then load again.";

export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

const REBUILD =
  "Load again. If that does not help, the copy on the server is damaged: " +
  "stop lightcourse serve-demo and start it again, which writes it anew.";

// Return a file's bytes once its length and SHA-256 are those of `entry`. `onBytes` is called with
// the number of bytes that came.
export async function fetchVerified(name, entry, onBytes) {
  const url = addressOf(name, entry), cache = await openCache();
  const kept = await cache?.match(url);
  if (kept) {
    const bytes = await kept.arrayBuffer();
    if ((await faultOf(name, entry, bytes)) === null) {
      onBytes(bytes.byteLength);
      return bytes;
    }
    await cache.delete(url);
  }
  const bytes = await download(name, url, entry, onBytes), fault = await faultOf(name, entry, bytes);
  if (fault) throw new LoadError(`${fault} Nothing of it was used. ${REBUILD}`);
  await keep(cache, url, bytes);
  return bytes;
}

const addressOf = (name, entry) => `./${name}?${entry.sha256.slice(0, 16)}`;

// Where a browser keeps nothing (a private window, say), the page works, but with a network only.
const openCache = () => caches.open(KEPT).catch(() => null);

const keep = (cache, url, bytes) =>
  cache?.put(url, new Response(bytes, { headers: { "Content-Length": bytes.byteLength } })).catch(() => null);

async function faultOf(name, entry, bytes) {
  if (bytes.byteLength !== entry.bytes) {
    return `The file ${name} is incomplete: ${megabytes(bytes.byteLength)} came, ${megabytes(entry.bytes)} are wanted.`;
  }
  return (await sha256(bytes)) === entry.sha256 ? null : `The file ${name} is damaged: its SHA-256 is not the expected one.`;
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function download(name, url, entry, onBytes) {
  const response = await fetch(url, { cache: "no-store" }).catch(() => null);
  if (!response) throw new LoadError(SILENT);
  if (!response.ok) throw new LoadError(`The server has no file ${name} (it answers ${response.status}). ${REBUILD}`);
  const bytes = new Uint8Array(entry.bytes), reader = response.body.getReader();
  let length = 0;
  for (;;) {
    // A connection that breaks off leaves what came: too little.
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    if (done) return bytes.buffer.slice(0, length);
    if (length + value.length > entry.bytes) throw new LoadError(`The file ${name} is damaged: it is too long. ${REBUILD}`);
    bytes.set(value, length);
    length += value.length;
    onBytes(value.length);
  }
}

// Tell whether all files are kept, and drop those of earlier versions.
export async function allKept(entries) {
  const cache = await openCache();
  if (!cache) return false;
  const wanted = new Set(Object.entries(entries).map((pair) => new URL(addressOf(...pair), location.href).href));
  for (const request of await cache.keys()) {
    if (!wanted.delete(request.url)) await cache.delete(request);
  }
  return wanted.size === 0;
}
