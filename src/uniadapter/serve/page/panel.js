// One picture or video: ask it, have it captioned, compare two adapters, see where words look.

import * as api from "./api.js";
import { byId, clock, element, moving, percent, still } from "./elements.js";
import * as looks from "./looks.js";

let item = null, index = null, asked = 0, searched = "";

const MOST = 4; // adapters side by side
const ALL = "*"; // no adapter is called so

function offer(form, select, adapters) {
  const names = adapters.map((one) => one.name);
  form.hidden = !names.length;
  select.closest("label").hidden = names.length < 2;
  select.replaceChildren(...names.map((name) => element("option", { value: name }, name)),
    ...(names.length > 1 ? [element("option", { value: ALL }, "all, side by side")] : []));
}

export function set_up(described, on_like) {
  index = described;
  offer(byId("ask"), byId("vqa"), index.adapters.vqa);
  offer(byId("caption"), byId("captioner"), index.adapters.caption);
  byId("close").addEventListener("click", () => byId("panel").close());
  byId("panel").addEventListener("close", () => { asked += 1; looks.hide(); byId("media").replaceChildren(); });
  byId("panel").addEventListener("click", (event) => { if (event.target === byId("panel")) byId("panel").close(); });
  byId("like").addEventListener("click", () => { byId("panel").close(); on_like(item); });
  byId("ask").addEventListener("submit", (event) => { event.preventDefault(); answer("vqa"); });
  byId("caption").addEventListener("submit", (event) => { event.preventDefault(); answer("caption"); });
}

export function open(found, words) {
  item = found;
  searched = words;
  byId("panel-title").textContent = item.name;
  byId("facts").textContent = [item.kind === "video" && item.seconds ? `${clock(item.seconds)} long` : "",
    item.time != null ? `best moment ${clock(item.time)}` : ""].filter(Boolean).join(", ");
  const shown = item.plays ? moving(item, item.time, { controls: !item.plays.startsWith("image/") }) : still(item, true);
  byId("media").replaceChildren(shown);
  shown.play?.().catch(() => {});
  byId("answers").replaceChildren();
  byId("question").value = "";
  suggest(byId("vqa"), index.adapters.vqa);
  suggest(byId("captioner"), index.adapters.caption);
  looks.hide();
  if (!byId("panel").open) byId("panel").showModal();
  if (searched && index.fuses) looks.show(item, searched, byId("retrieval").value, "retrieval").catch(failed);
}

function chosen(task) {
  const value = byId(task === "vqa" ? "vqa" : "captioner").value;
  return value === ALL ? index.adapters[task].slice(0, MOST).map((one) => one.name) : [value];
}

// An adapter that was trained on videos for a video, one of pictures for a picture, where there are both.
function suggest(select, adapters) {
  const moves = item.kind === "video";
  const fitting = adapters.find((one) => one.frames > 1 === moves && one.trained) ?? adapters[0];
  if (fitting && select.value !== ALL) select.value = fitting.name;
}

async function answer(task) {
  const question = byId("question").value.trim(), own = (asked += 1), adapters = chosen(task);
  if (task === "vqa" && !question) { byId("question").focus(); return; }
  const area = byId("answers");
  area.setAttribute("aria-busy", "true");
  area.replaceChildren(element("p", { class: "note busy" }, task === "vqa" ? "Thinking …" : "Writing …"));
  try {
    const found = await (task === "vqa" ? api.ask(item.key, question, adapters) : api.caption(item.key, adapters));
    if (own !== asked) return;
    area.replaceChildren(...found.answers.map((one, place) => told(one, place)));
    looks.hide();
    if (task === "vqa") await looks.show(item, question, adapters[0], "vqa");
  } catch (error) {
    if (own === asked) failed(error);
  } finally {
    if (own === asked) area.setAttribute("aria-busy", "false");
  }
}

function failed(error) {
  const text = error.status === 503 ? "The server is busy. Ask again in a moment." : error.message;
  byId("answers").replaceChildren(element("p", { class: "bad" }, text));
}

function told(one, place) {
  const bars = one.ranked.slice(0, 5).map(([text, probability]) => element("li", {}, element("span", {}, text),
    element("meter", { min: 0, max: 1, value: probability, "aria-label": `probability of ${text}` }), element("span", {}, percent(probability))));
  return element("section", { class: place ? "answer second" : "answer" }, element("span", { class: "note" }, one.adapter),
    element("b", {}, one.text), bars.length ? element("ul", { class: "bars" }, ...bars) : null);
}
