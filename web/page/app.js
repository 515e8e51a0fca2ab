// The page: loads the files, shows how far it is, and answers.

import { nearest, positive, readVectors } from "./answers.js";
import { Encoder } from "./encoder.js";
import { LoadError, SILENT, allKept, fetchVerified, megabytes } from "./storage.js";

const HITS = 5;
const PURPOSES = {
  "model.onnx": "the encoder, in 8 bits",
  "ort/ort-wasm-simd-threaded.wasm": "what computes: ONNX Runtime",
  "vocab.txt": "the pieces of words that the encoder knows",
  "head.json": "positive or negative: one linear layer",
  "passages.json": "the Factbook’s passages",
  "passages.bin": "a vector for each passage, in 8 bits",
  "ledger.json": "the figures above",
};
const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const parse = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

function element(name, content = "", attributes = {}) {
  const made = document.createElement(name);
  made.append(...[content].flat());
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

// A bar in SVG: its length needs no style attribute, which the page's policy forbids.
function bar(share) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg"), rect = document.createElementNS(space, "rect");
  rect.setAttribute("width", `${100 * share}%`);
  rect.setAttribute("height", "100%");
  svg.append(rect);
  return element("div", [svg], { class: "bar", "aria-hidden": "true" });
}

// --- loading ---------------------------------------------------------------------------------

async function load() {
  $("trouble").hidden = true;
  $("loading").hidden = false;
  try {
    checkAddress();
    const manifest = await readManifest(), files = await loadFiles(manifest);
    stage("Starting the model");
    await start(manifest, files);
    ready();
    await goOffline(manifest);
  } catch (error) {
    fail(error);
  }
}

function checkAddress() {
  if (isSecureContext) return;
  throw new LoadError(
    "Open this page by https, or by http://127.0.0.1 on the machine that serves it: " +
    "only there does a browser let a page check files and keep them.");
}

async function readManifest() {
  const response = await fetch("manifest.json").catch(() => null);
  if (!response?.ok) throw new LoadError(SILENT);
  return response.json();
}

async function loadFiles({ files }) {
  const whole = Object.values(files).reduce((sum, file) => sum + file.bytes, 0);
  let came = 0;
  const onBytes = (bytes) => {
    came += bytes;
    $("progress").value = came / whole;
    $("loaded").textContent = megabytes(came);
    stage(`Loading the model: ${megabytes(came)} of ${megabytes(whole)}`);
  };
  const names = Object.keys(files);
  const loaded = await Promise.all(names.map((name) => fetchVerified(name, files[name], onBytes)));
  return Object.fromEntries(names.map((name, i) => [name, loaded[i]]));
}

async function start(manifest, files) {
  const parts = {
    model: files["model.onnx"],
    runtime: files["ort/ort-wasm-simd-threaded.wasm"],
    vocabulary: files["vocab.txt"],
  };
  const encoder = await Encoder.open(parts, manifest.tokens);
  const passages = parse(files["passages.json"]), head = parse(files["head.json"]);
  const vectors = readVectors(files["passages.bin"], passages.length);
  await encoder.read("The first answer is slow, so nobody waits for it.");
  const model = {
    judge: async (text) => {
      const { vector, tokens } = await encoder.read(text);
      return { positive: positive(head, vector), tokens };
    },
    search: async (text) => {
      const { vector } = await encoder.read(text);
      return nearest(vectors, vector, HITS).map(([i, cosine]) => ({ ...passages[i], passage: i, cosine }));
    },
    encoder,
  };
  showLedger(parse(files["ledger.json"]), manifest.files);
  listen(model);
  window.lightcourse = model; // for the curious, and for the tests
}

function ready() {
  $("loading").hidden = true;
  $("state").textContent = "The model is ready.";
  document.querySelectorAll("fieldset").forEach((fieldset) => (fieldset.disabled = false));
}

const stage = (text) => ($("stage").textContent = text);

function fail(error) {
  $("loading").hidden = true;
  $("trouble").hidden = false;
  const known = error instanceof LoadError;
  if (!known) console.error(error);
  $("reason").textContent = known ? error.message :
    `The model could not be started: ${error.message}. A current Chrome, Edge, Firefox or Safari ` +
    "is wanted: update the browser, then load again.";
}

// The page opens without network once the service worker has its files, and we ours.
async function goOffline({ files }) {
  const registered = await navigator.serviceWorker?.register("sw.js").then(() => navigator.serviceWorker.ready).catch(() => null);
  const works = Boolean(registered) && (await allKept(files));
  $("offline").textContent = works ? "ready" : "no";
  $("offline").classList.toggle("yes", works);
  $("state").textContent = works
    ? "The model is ready. This page works offline now."
    : "The model is ready. This browser keeps no files, so the page needs the network each time.";
}

// --- answering -------------------------------------------------------------------------------

function listen(model) {
  $("judge").onsubmit = (event) => answer(event, $("review"), model.judge, showVerdict);
  $("search").onsubmit = (event) => answer(event, $("query"), model.search, showHits);
  $("review").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("judge").requestSubmit();
  };
  for (const chip of document.querySelectorAll(".chip")) {
    chip.onclick = () => {
      chip.form.querySelector("textarea, input").value = chip.textContent;
      chip.form.requestSubmit();
    };
  }
}

async function answer(event, field, ask, show) {
  event.preventDefault();
  const text = field.value.trim();
  if (!text) return field.focus();
  const begin = performance.now(), found = await ask(text), time = performance.now() - begin;
  $("time").textContent = `${time.toFixed(time < 10 ? 1 : 0)} ms`;
  show(found, `${time.toFixed(0)} ms`);
}

function showVerdict({ positive: share, tokens }, time) {
  const good = share >= 0.5, sure = good ? share : 1 - share;
  const line = [element("span", good ? "Positive" : "Negative"), element("span", ` ${percent(sure)}`)];
  const details = `${sure < 0.65 ? "It is not sure. " : ""}${tokens} tokens read in ${time}.`;
  $("verdict").className = `verdict ${good ? "positive" : "negative"}`;
  $("verdict").replaceChildren(element("p", line, { class: "answer" }), bar(sure), element("p", details, { class: "hint" }));
}

function showHits(hits, time) {
  $("found").textContent = `The ${hits.length} nearest passages, found in ${time}. The nearest is about ${hits[0].country}.`;
  $("hits").replaceChildren(...hits.map(({ country, section, text, cosine }) => element("li", [
    element("p", [element("strong", country), element("span", `${section} · ${cosine.toFixed(2)}`)], { class: "place" }),
    element("p", text),
  ])));
}

// --- the ledger ------------------------------------------------------------------------------

function showLedger(ledger, files) {
  const most = Math.max(...ledger.rows.map((row) => row.bytes));
  $("ledger").replaceChildren(...ledger.rows.map((row) => element("tr", [
    element("th", row.name, { scope: "row" }),
    element("td", row.bytes ? [megabytes(row.bytes), bar(row.bytes / most)] : "–"),
    element("td", percent(row.accuracy)),
  ])));
  $("agreement").textContent = agreement(ledger);
  $("files").replaceChildren(...Object.entries(files).map(([name, { bytes }]) => element("tr", [
    element("th", name.split("/").at(-1), { scope: "row" }), element("td", bytes.toLocaleString("en")), element("td", PURPOSES[name] ?? ""),
  ])));
}

function agreement(ledger) {
  return `Both give the same answer to ${percent(ledger.same_label)} of ${ledger.reviews.toLocaleString("en")} ` +
    `reviews that no one was trained on. In a search among ${ledger.among} passages both put ` +
    `the same one first for ${percent(ledger.same_first)} of ${ledger.questions} questions.`;
}

$("again").onclick = load;
load();
