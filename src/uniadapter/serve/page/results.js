// The grid of what was found.

import { byId, clock, element, moving, percent, still } from "./elements.js";

function score(found) {
  if (found.matching != null) return `fits ${percent(found.matching)}`;
  return found.similarity == null ? "" : `similarity ${found.similarity.toFixed(3)}`;
}

function card(found, open) {
  const picture = element("span", { class: "picture" }, still(found),
    found.kind === "video" ? element("span", { class: "badge" }, `▶ ${clock(found.time ?? 0)}`) : null);
  const made = element("button", { class: "card", type: "button", onclick: () => open(found) }, picture,
    element("span", { class: "name" }, found.name), element("span", { class: "score" }, score(found)));
  if (found.plays) { // plays under the pointer, or with the focus of the keyboard
    let player = null;
    const begin = () => {
      if (player) return;
      player = moving(found, found.time);
      picture.append(player);
      player.play?.().catch(() => {});
    };
    const end = () => { player?.remove(); player = null; };
    for (const name of ["pointerenter", "focus"]) made.addEventListener(name, begin);
    for (const name of ["pointerleave", "blur"]) made.addEventListener(name, end);
  }
  return element("li", {}, made);
}

export function show(results, open) {
  byId("results").replaceChildren(...results.map((found) => card(found, open)));
  byId("empty").hidden = results.length > 0;
}

export function showNothing(title, advice) {
  byId("results").replaceChildren();
  byId("empty").replaceChildren(element("strong", {}, title), advice);
  byId("empty").hidden = false;
}
