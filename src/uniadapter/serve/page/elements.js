// Elements of the page. Text is always set as text: a file's name or a caption is never read as HTML.

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((one) => one != null));
  return made;
}

export const percent = (value) => `${(100 * value).toFixed(value > 0.9995 ? 0 : 1)}%`;

export const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

// A video that plays, silently and again and again, from the moment that was found; animations are pictures to a browser.
export function moving(item, time, attributes = {}) {
  const source = `api/media/${item.key}`;
  if (item.plays.startsWith("image/")) return element("img", { src: source, alt: item.name, ...attributes });
  const made = element("video", { muted: true, loop: true, playsinline: true, preload: "auto", "aria-label": item.name,
    poster: thumbnail(item), src: `${source}#t=${time ?? 0}`, ...attributes });
  made.muted = true; // the attribute alone does not mute what a script has made
  made.addEventListener("error", () => made.replaceWith(still(item)), { once: true });
  return made;
}

export const thumbnail = (item) => `api/thumbnail/${item.key}${item.time == null ? "" : `?time=${item.time}`}`;

export const still = (item, large = false) =>
  element("img", { src: large ? `api/picture/${item.key}` : thumbnail(item), alt: item.name, loading: large ? "eager" : "lazy" });
