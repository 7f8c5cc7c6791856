// Puts the parts of the page together.

const reveal = (id) => { document.getElementById(id).hidden = false; };

// Positions in data.samples by cell of the matrix.
function samplesByCell() {
  const found = new Map();
  data.samples?.label.forEach((label, position) => {
    const key = label * names.length + data.samples.prediction[position];
    if (found.has(key)) found.get(key).push(position);
    else found.set(key, [position]);
  });
  return found;
}

function start() {
  const { support, predicted } = data.perClass;
  const byCell = samplesByCell();
  const panel = make("div", { class: "panel", id: "cell-panel", tabindex: -1, role: "region", "aria-live": "polite", "aria-label": "Samples of the chosen cell" },
    make("p", { class: "hint" }, "Point at a cell to read it, click it to see its samples. Double-click, pinch or Ctrl + wheel zooms; drag moves."));

  function showCell(row, column, count) {
    const found = byCell.get(row * names.length + column) ?? [];
    const title = row === column
      ? [named(className(row)), " recognised"]
      : [named(className(row)), make("span", { class: "arrow" }, " → "), named(className(column), "of-wrong")];
    const facts = `${samplesIn(count)}, ${percent(count, support[row])} of the true class, ${percent(count, predicted[column])} of the predicted class`;
    const rest = found.length && found.length < count ? `; shown: the ${row === column ? "least sure" : "worst"} ${found.length === 1 ? "one" : found.length}` : "";
    panel.replaceChildren(
      make("h3", {}, ...title),
      make("p", { class: "facts" }, facts + rest),
      count && !found.length ? make("p", { class: "hint" }, data.samples ? "The samples of this cell are in the table of predictions." : "Only counts are known of these predictions.") : "",
      make("div", { class: "gallery" }, ...found.map((position) => card(position, false))));
  }

  const host = document.getElementById("matrix");
  const left = make("div");
  host.append(make("div", { class: "matrix-layout" }, left, panel));
  const matrix = confusionMatrix(left, showCell);
  const jump = (row, column) => {
    matrix.select(row, column);
    host.scrollIntoView({ block: "start" });
  };

  if (data.pairs.length) {
    reveal("pairs");
    pairTable(document.getElementById("pair-list"), jump);
  }
  classTable(document.getElementById("class-table"), jump);
  if (data.reliability) {
    reveal("confidence");
    confidenceCharts(document.getElementById("charts"));
  }
  for (const [section, gallery, positions] of [["mistakes", "mistake-gallery", data.gallery], ["suspects", "suspect-gallery", data.suspects]]) {
    if (!positions.length) continue;
    reveal(section);
    document.getElementById(gallery).append(...positions.map((position) => card(position)));
  }

  theme(matrix.draw);
  const copy = document.getElementById("copy");
  copy?.addEventListener("click", () => {
    getSelection().selectAllChildren(document.getElementById("command"));
    document.execCommand("copy"); // works from file://, where navigator.clipboard may not
    copy.textContent = "Copied";
  });
}

function theme(redraw) {
  const root = document.documentElement;
  const remembered = (action) => {
    try {
      return action(localStorage);
    } catch (error) { // a page in a sandbox may not remember
      return null;
    }
  };
  const before = remembered((storage) => storage.getItem("evalkit-theme"));
  if (before === "dark" || before === "light") {
    root.dataset.theme = before;
    redraw();
  }
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered((storage) => storage.setItem("evalkit-theme", root.dataset.theme));
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let screen;
  addEventListener("beforeprint", () => {
    screen = root.dataset.theme;
    root.dataset.theme = "light";
    redraw();
  });
  addEventListener("afterprint", () => {
    if (screen) root.dataset.theme = screen;
    else delete root.dataset.theme;
    redraw();
  });
}

start();
