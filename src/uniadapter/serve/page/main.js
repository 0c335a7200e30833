// Search as one types, uploads, and what stands in the address.

import * as api from "./api.js";
import { byId, element } from "./elements.js";
import * as panel from "./panel.js";
import * as results from "./results.js";

const PAUSE = 180, SETTLED = 450; // milliseconds after a letter: similarity at once, matching when the words stand still
let index = null, running = null, timers = [];

const words = () => byId("query").value.trim();
const say = (text, bad = false) => { byId("status").textContent = text; byId("status").classList.toggle("bad", bad); };
const open = (found) => panel.open(found, words().includes("./") || words().includes(" - ") ? "" : words());

async function search(rerank) {
  const query = words();
  running?.abort();
  if (!query) { welcome(); return; }
  const own = (running = new AbortController());
  say("Searching …");
  try {
    const asked = { query, kind: byId("kind").value, rerank, adapter: byId("retrieval").value };
    const found = await api.search(asked, own.signal);
    if (own !== running) return;
    if (found.results.length) results.show(found.results, open);
    else results.showNothing("Nothing found", "Nothing in the index is near enough. Use other words, or fewer.");
    say(`${found.results.length} found in ${Math.max(1, Math.round(1000 * found.seconds))} ms`);
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error.status === 503 ? "The server is busy; it was asked three times." : error.message, true);
  }
}

function later() {
  timers.forEach(clearTimeout);
  timers = [setTimeout(() => search(!index.fuses), PAUSE)];
  if (index.fuses) timers.push(setTimeout(() => search(true), SETTLED));
  remember();
}

function now() {
  timers.forEach(clearTimeout);
  remember();
  search(true);
}

function remember() {
  const asked = new URLSearchParams(Object.entries({ q: words(), kind: byId("kind").value }).filter(([, value]) => value));
  history.replaceState(null, "", asked.size ? `?${asked}` : location.pathname);
}

function welcome() {
  running = null;
  say("");
  if (!index.files) results.showNothing("The index is empty", "Add pictures and videos: uniadapter index FOLDER --index INDEX");
  else results.showNothing(`${index.files - index.videos} pictures and ${index.videos} videos`, "Say what you look for.");
}

async function upload(file) {
  if (!file) return;
  if (file.size > index.upload_bytes) { say(`${file.name} has more than ${Math.round(index.upload_bytes / 2 ** 20)} MB, the limit of this server`, true); return; }
  say(`Uploading ${file.name} …`);
  try {
    const item = await api.upload(file);
    say("");
    panel.open({ ...item, time: null }, "");
  } catch (error) {
    say(error.message, true);
  }
}

async function begin() {
  const given = new URLSearchParams(location.search); // before the server answers: somebody may be typing by then
  byId("query").value ||= given.get("q") ?? "";
  byId("kind").value = given.get("kind") ?? "";
  try {
    index = await api.describe();
  } catch (error) {
    results.showNothing("No answer", error.message);
    return;
  }
  byId("title").textContent = index.name;
  document.title = `${index.name} · uniadapter`;
  byId("retrieval").replaceChildren(...index.adapters.retrieval.map(({ name }) => element("option", { value: name }, `ranked by ${name}`)));
  byId("retrieval").value = index.searching;
  byId("ranker").hidden = !index.fuses || index.adapters.retrieval.length < 2;
  panel.set_up(index, (item) => { byId("query").value = `./${item.key}`; now(); });
  byId("search").addEventListener("submit", (event) => { event.preventDefault(); now(); });
  byId("query").addEventListener("input", later);
  for (const id of ["kind", "retrieval"]) byId(id).addEventListener("change", now);
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => { upload(event.target.files[0]); event.target.value = ""; });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => { event.preventDefault(); upload(event.dataTransfer.files[0]); });
  if (words()) now(); else welcome(); // typed before the server answered: to be kept in the address too
}

begin();
