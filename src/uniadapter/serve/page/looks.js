// Where the words of a text look: heat over the frames, a word at a time.

import * as api from "./api.js";
import { byId, element, percent } from "./elements.js";

let latest = 0;

export function hide() {
  latest += 1;
  byId("why").hidden = true;
}

export async function show(item, text, adapter, task) {
  const own = (latest += 1);
  let found;
  try {
    found = await api.why(item.key, text, adapter, task);
  } catch (error) {
    if (error.status === 400) return; // a model whose words do not look at patches
    throw error;
  }
  if (own !== latest || !found.words.length) return; // another text was asked since
  const frames = Array.from({ length: found.frames }, (_, number) => frame(item, number, found));
  byId("looks").replaceChildren(...frames.map((one) => one.figure));
  const buttons = found.words.map((word, row) =>
    element("button", { type: "button", "aria-pressed": "false", onclick: () => choose(row) }, word));
  function choose(row) {
    buttons.forEach((one, other) => one.setAttribute("aria-pressed", String(other === row)));
    const values = found.maps[row], most = Math.max(...values), size = found.rows * found.columns;
    frames.forEach((one, number) => one.paint(values.slice(number * size, (number + 1) * size), most, found.frame_shares[row][number]));
  }
  byId("words").replaceChildren(...buttons);
  choose(Math.max(0, found.words.findLastIndex((word) => /\p{L}/u.test(word)))); // the last that is no question mark
  const weighed = found.frame_weights.some((weight) => Math.abs(weight - 1) > 0.0005);
  byId("weights").textContent = weighed ? `Weights of the frames for this text: ${found.frame_weights.map((one) => one.toFixed(2)).join(", ")}.` : "";
  byId("why").hidden = false;
}

function frame(item, number, found) {
  const canvas = element("canvas", { width: found.columns, height: found.rows, "aria-hidden": "true" });
  const caption = element("figcaption");
  const picture = element("img", { src: `api/frame/${item.key}/${number}?of=${found.frames}`, alt: found.frames > 1 ? `frame ${number + 1}` : "what the model sees" });
  const figure = element("figure", {}, element("span", { class: "frame" }, picture, canvas), caption);
  function paint(values, most, share) {
    const context = canvas.getContext("2d"), image = context.createImageData(found.columns, found.rows);
    values.forEach((value, place) => {
      const strength = most > 0 ? value / most : 0;
      image.data.set([255, Math.round(210 - 150 * strength), 0, Math.round(215 * strength)], 4 * place);
    });
    context.putImageData(image, 0, 0);
    caption.textContent = found.frames > 1 ? `frame ${number + 1} · ${percent(share)} of the word's attention` : "";
  }
  return { figure, paint };
}
