// The table of classes and that of the most confused pairs.

const ROWS_AT_FIRST = 50;

// Bars of scores near 1 would all end at one place: they begin below the lowest interval.
function beginning() {
  const lowest = Math.min(...["f1", "precision", "recall"].flatMap((key) => data.perClass[`${key}_low`].filter((low) => low !== null)), 1);
  return Math.min(Math.floor(10 * lowest) / 10, 0.9);
}

function intervalBar(value, low, high, from) {
  const along = (at) => `${(100 * (at - from)) / (1 - from)}%`;
  if (value === null) return make("span", {}, "–");
  const range = make("i");
  range.style.left = along(low);
  range.style.width = along(from + high - low);
  const mark = make("b");
  mark.style.left = along(value);
  const label = `${fraction(value)}, interval ${fraction(low)} to ${fraction(high)}`;
  return make("span", { class: "score", title: label }, make("span", {}, fraction(value)),
    make("span", { class: "bar", role: "img", "aria-label": label }, range, mark));
}

function classTable(host, onSelect) {
  const { perClass } = data;
  const columns = [
    { key: "name", title: "Class", up: true, value: (row) => names[row] },
    ...[["f1", "F1"], ["precision", "Precision"], ["recall", "Recall"]].map(([key, title]) => ({
      key, title, up: true, score: true,
      // Worst by the upper end: that does not blame a class for having few samples.
      value: (row) => perClass[`${key}_high`][row],
    })),
    { key: "support", title: "Samples", value: (row) => perClass.support[row] },
    { key: "predicted", title: "Predicted", value: (row) => perClass.predicted[row] },
  ];
  const from = beginning();
  const state = { column: columns[1], ascending: true, search: "", shown: ROWS_AT_FIRST };
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function compare(a, b) {
    const [left, right] = [state.column.value(a), state.column.value(b)];
    if (left === null || right === null) return (left === null) - (right === null) || a - b; // undefined last
    const order = typeof left === "string" ? collator.compare(left, right) : left - right;
    return (state.ascending ? order : -order) || a - b;
  }

  const body = make("tbody");
  const more = make("button", { type: "button", class: "quiet", onclick: () => { state.shown += 1000; render(); } });
  const none = make("p", { class: "none", hidden: true }, "No class has this in its name.");
  const count = make("span", { role: "status", class: "of" });

  function rowOf(row) {
    const scores = columns.filter((column) => column.score).map(({ key, title }) =>
      make("td", { class: "score-cell", "data-label": title }, intervalBar(perClass[key][row], perClass[`${key}_low`][row], perClass[`${key}_high`][row], from)));
    const link = make("button", { type: "button", class: "link", onclick: () => onSelect(row, row) }, named(className(row)));
    return make("tr", {}, make("td", { class: "full" }, link), ...scores,
      make("td", { class: "number", "data-label": "samples" }, whole(perClass.support[row])),
      make("td", { class: "number", "data-label": "predicted" }, whole(perClass.predicted[row])));
  }

  function render() {
    const wanted = state.search.toLowerCase();
    const rows = names.map((_, row) => row).filter((row) => names[row].toLowerCase().includes(wanted)).sort(compare);
    body.replaceChildren(...rows.slice(0, state.shown).map(rowOf));
    for (const column of columns) {
      column.head.setAttribute("aria-sort", column !== state.column ? "none" : state.ascending ? "ascending" : "descending");
    }
    more.hidden = rows.length <= state.shown;
    more.textContent = `Show ${whole(Math.min(1000, rows.length - state.shown))} more of ${whole(rows.length)}`;
    none.hidden = rows.length > 0;
    count.textContent = wanted ? `${whole(rows.length)} of ${whole(names.length)} classes` : `${whole(names.length)} ${names.length === 1 ? "class" : "classes"}`;
  }

  for (const column of columns) {
    const sort = () => {
      state.ascending = state.column === column ? !state.ascending : Boolean(column.up);
      state.column = column;
      render();
    };
    column.head = make("th", { scope: "col", class: column.score || column.key === "name" ? "" : "number" },
      make("button", { type: "button", onclick: sort }, column.title));
  }
  const search = make("input", {
    type: "search", placeholder: "Search classes", "aria-label": "Search classes",
    oninput: () => { state.search = search.value; state.shown = ROWS_AT_FIRST; render(); },
  });
  host.append(
    make("p", { class: "note" }, `Bars are ${data.level} intervals on a scale from ${from} to 1. Scores are sorted by the upper end of theirs, so that a class is not called bad for having few samples.`),
    make("div", { class: "controls" }, search, count),
    make("table", { class: "grid wide" }, make("thead", {}, make("tr", {}, ...columns.map((column) => column.head))), body), more, none);
  render();
}

function pairTable(host, onSelect) {
  const { support } = data.perClass;
  const row = ([label, given, count]) => {
    const fill = make("i");
    fill.style.width = `${(100 * count) / support[label]}%`;
    const link = make("button", { type: "button", class: "link", onclick: () => onSelect(label, given) },
      named(className(label)), make("span", { class: "arrow" }, " → "), named(className(given), "of-wrong"));
    return make("tr", {}, make("td", {}, link), make("td", { class: "number" }, whole(count)),
      make("td", { class: "pair-share" }, make("span", { class: "score" }, make("span", {}, percent(count, support[label]).replace(" %", "%")),
        make("span", { class: "bar share", "aria-hidden": "true" }, fill))));
  };
  const body = make("tbody", {}, ...data.pairs.slice(0, 12).map(row));
  const more = make("button", { type: "button", class: "quiet", onclick: () => { body.append(...data.pairs.slice(12).map(row)); more.hidden = true; } },
    `Show ${data.pairs.length - 12} more`);
  more.hidden = data.pairs.length <= 12;
  host.append(make("table", { class: "grid" },
    make("thead", {}, make("tr", {}, ...[["True → predicted", ""], ["Samples", "number"], ["Of the true class", "pair-share"]].map(([title, kind]) =>
      make("th", { scope: "col", class: `plain ${kind}` }, title)))),
    body), more);
}
