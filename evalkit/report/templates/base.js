// Values from outside reach the page through textContent alone, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const names = data.classes;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const named = (text, extra = "") => make("span", { class: `name ${extra}`.trim() }, text === "" ? "(empty)" : text);
const className = (position) => (names[position] === "" ? "(empty)" : names[position]);
const whole = (number) => number.toLocaleString("en-US");
const fraction = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
const samplesIn = (number) => `${whole(number)} ${number === 1 ? "sample" : "samples"}`;

function percent(part, all) {
  if (!all) return "–";
  const value = (100 * part) / all;
  if (value !== 0 && value < 0.1) return "< 0.1 %";
  return `${value > 99.9 && value < 100 ? "> 99.9" : value.toFixed(1)} %`;
}

function decode({ kind, data: text }) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new { u2: Uint16Array, u4: Uint32Array, f8: Float64Array }[kind](bytes.buffer);
}

// What a colour variable of the style sheet is right now, as [red, green, blue].
function colour(variable) {
  const probe = make("i");
  probe.style.color = `var(${variable})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return found;
}

const css = (rgb) => `rgb(${rgb.map(Math.round).join(" ")})`;
const isDark = () => colour("--paper")[0] < 128;

const tooltip = document.getElementById("tooltip");

function showTooltip(lines, x, y) {
  tooltip.replaceChildren(...lines);
  tooltip.hidden = false;
  const { width, height } = tooltip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth - 8 ? x - 16 - width : x + 16;
  tooltip.style.left = `${Math.max(8, left)}px`;
  tooltip.style.top = `${Math.max(8, Math.min(y + 16, innerHeight - height - 8))}px`;
}

function hideTooltip() {
  tooltip.hidden = true;
}

// Two or more buttons of which one is pressed.
function choice(label, options, onChoose) {
  const buttons = options.map(([value, text]) =>
    make("button", {
      type: "button",
      "aria-pressed": "false",
      onclick: () => choose(value),
      "data-value": value,
    }, text));
  function choose(value) {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.value === value));
    onChoose(value);
  }
  buttons[0].setAttribute("aria-pressed", "true");
  return make("div", { class: "choice", role: "group", "aria-label": label }, ...buttons);
}

// A path that is broken between folders where it is too long for one line.
const breakable = (path) => path.split(/(?<=[/\\])/).flatMap((part) => [part, make("wbr")]);

// The picture, the classes where they are not said anyway, and the path of one sample.
function card(position, withClasses = true) {
  const { label, prediction, path, confidence, thumbnail } = data.samples;
  const wrong = label[position] !== prediction[position];
  const uri = thumbnail[position];
  const picture = uri === undefined ? null : make("img", { src: uri, alt: "", decoding: "async" });
  picture?.addEventListener("load", () => picture.classList.toggle("tiny", picture.naturalWidth <= 64));
  const given = named(className(prediction[position]), wrong ? "of-wrong" : "of-right");
  const classes = wrong
    ? [named(className(label[position])), make("span", { class: "arrow" }, " → "), given]
    : [given];
  const sure = confidence ? confidence[position] : null;
  return make("figure", { class: "card" }, picture, make("figcaption", {},
    withClasses ? make("span", {}, ...classes) : null,
    sure === null ? null : make("span", { class: "sure" }, `confidence ${fraction(sure)}`),
    make("span", { class: "path" }, ...breakable(path[position]))));
}
