// The confusion matrix on a canvas: one canvas for the cells, one above it for what is pointed at.

const counts = { start: new Uint32Array(names.length + 1), column: decode(data.matrix.columns), value: decode(data.matrix.counts) };
decode(data.matrix.perRow).forEach((number, row) => { counts.start[row + 1] = counts.start[row] + number; });

function countAt(row, column) {
  for (let cell = counts.start[row]; cell < counts.start[row + 1]; cell++) {
    if (counts.column[cell] === column) return counts.value[cell];
  }
  return 0;
}

// Pixels of the page.
const WIDEST_CELL = 56;
const LABELLED_CELL = 11;
const BARE_MARGIN = 20;

function confusionMatrix(host, onSelect) {
  const size = names.length;
  const { support, predicted } = data.perClass;
  const inOrder = names.map((_, position) => position);
  const state = { order: inOrder, place: inOrder, by: "count", mistakesOnly: false, zoom: 1, x: 0, y: 0, selected: null, hovered: null };
  const cells = make("canvas", { "aria-hidden": "true" });
  const marks = make("canvas", {
    tabindex: 0,
    role: "application",
    "aria-label": `Confusion matrix, ${size} by ${size} classes; rows are true classes, columns predicted ones. ` +
      "Arrow keys move, Enter shows the samples of a cell, plus and minus zoom, 0 shows all.",
  });
  const plot = make("div", { class: "plot" }, cells, marks);
  let onPaper = false;
  const legend = make("div", { class: "legend" });
  let geometry = null;

  const shown = (row, column, count) => {
    if (state.by === "row") return count / support[row];
    if (state.by === "column") return count / predicted[column];
    return count;
  };

  function measure() {
    const width = plot.clientWidth;
    const context = cells.getContext("2d");
    context.font = "12px system-ui, sans-serif";
    const longest = size > 400 ? 90 : Math.max(...names.map((name) => context.measureText(name.slice(0, 40)).width));
    const named = Math.round(Math.min(Math.max(longest + 28, 44), width * 0.26, 150));
    const margin = ((width - named) / size) * state.zoom < LABELLED_CELL ? BARE_MARGIN : named;
    const side = width - margin;
    geometry = { width, margin, side, fit: side / size, cell: (side / size) * state.zoom, ratio: devicePixelRatio || 1 };
    for (const canvas of [cells, marks]) {
      const pixels = Math.round(width * geometry.ratio);
      if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
      canvas.style.height = `${width}px`;
    }
  }

  function clamp() {
    const most = geometry.cell * size - geometry.side;
    state.x = Math.min(Math.max(state.x, 0), Math.max(most, 0));
    state.y = Math.min(Math.max(state.y, 0), Math.max(most, 0));
    plot.classList.toggle("zoomed", state.zoom > 1.001);
  }

  function ramps() {
    const stops = isDark()
      ? { right: [[30, 48, 78], [56, 112, 188], [138, 190, 252]], wrong: [[66, 42, 22], [200, 104, 30], [255, 196, 130]] }
      : { right: [[222, 233, 247], [70, 130, 200], [13, 50, 100]], wrong: [[253, 232, 211], [230, 120, 25], [118, 42, 0]] };
    const at = (three, t) => {
      const [from, to, part] = t < 0.5 ? [three[0], three[1], 2 * t] : [three[1], three[2], 2 * t - 1];
      return from.map((value, channel) => value + (to[channel] - value) * part);
    };
    const table = (three) => Array.from({ length: 256 }, (_, step) => at(three, step / 255));
    return { right: table(stops.right), wrong: table(stops.wrong) };
  }

  // Largest value of right and of wrong cells: each has a scale of its own.
  function largest() {
    const most = { right: 0, wrong: 0 };
    for (let row = 0; row < size; row++) {
      for (let cell = counts.start[row]; cell < counts.start[row + 1]; cell++) {
        const kind = counts.column[cell] === row ? "right" : "wrong";
        most[kind] = Math.max(most[kind], shown(row, counts.column[cell], counts.value[cell]));
      }
    }
    // A lone mistake is not the worst that can be: a tenth of the scale of right answers is.
    const tenth = 0.1 * (state.by === "count" ? most.right : 1);
    return { right: most.right || 1, wrong: Math.max(most.wrong, tenth) };
  }

  // Square roots keep the few visible beside the many.
  const step = (value, most) => Math.round(255 * Math.sqrt(value / most));

  function draw() {
    measure();
    clamp();
    const { margin, side, cell, ratio, width } = geometry;
    const context = cells.getContext("2d");
    const palette = ramps();
    const most = largest();
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, width);
    context.fillStyle = css(colour("--sunken"));
    context.fillRect(margin, margin, side, side);
    const visible = [];
    for (let line = Math.floor(state.y / cell); line < Math.min(size, Math.ceil((state.y + side) / cell)); line++) {
      const row = state.order[line];
      for (let at = counts.start[row]; at < counts.start[row + 1]; at++) {
        const column = counts.column[at];
        const kind = row === column ? "right" : "wrong";
        if (kind === "right" && state.mistakesOnly) continue;
        const left = state.place[column] * cell - state.x;
        if (left + cell <= 0 || left >= side) continue;
        const value = shown(row, column, counts.value[at]);
        visible.push([left, line * cell - state.y, kind, step(value, most[kind]), value]);
      }
    }
    if (cell * ratio < 3) drawPixels(context, visible, palette);
    else drawCells(context, visible, palette);
    drawLabels(context);
    drawLegend(palette, most);
    // On paper the marks' own canvas is left out: a browser that prints replays what is drawn in
    // "beforeprint", and its clearRect would wipe the cells off.
    if (onPaper) markOn(context);
    else drawMarks();
  }

  function drawPixels(context, visible, palette) {
    const { margin, side, cell, ratio } = geometry;
    const pixels = Math.round(side * ratio);
    const image = context.createImageData(pixels, pixels);
    const strength = new Uint8Array(pixels * pixels);
    const across = Math.max(1, Math.ceil(cell * ratio));
    const background = colour("--sunken");
    for (let at = 0; at < image.data.length; at += 4) image.data.set([...background, 255], at);
    for (const [left, top, kind, tone] of visible) {
      const rgb = palette[kind][tone];
      const x0 = Math.floor(left * ratio);
      const y0 = Math.floor(top * ratio);
      for (let y = Math.max(y0, 0); y < Math.min(y0 + across, pixels); y++) {
        for (let x = Math.max(x0, 0); x < Math.min(x0 + across, pixels); x++) {
          const at = y * pixels + x;
          if (tone + 1 < strength[at]) continue; // where cells share a pixel the strongest is seen
          strength[at] = Math.min(255, tone + 1);
          image.data.set(rgb, 4 * at);
        }
      }
    }
    context.putImageData(image, Math.round(margin * ratio), Math.round(margin * ratio));
  }

  function drawCells(context, visible, palette) {
    const { margin, side, cell } = geometry;
    const gap = cell > 14 ? 1 : cell > 6 ? 0.5 : 0;
    context.save();
    context.beginPath();
    context.rect(margin, margin, side, side);
    context.clip();
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.font = `${Math.min(13, cell * 0.36)}px system-ui, sans-serif`;
    for (const [left, top, kind, tone, value] of visible) {
      const rgb = palette[kind][tone];
      context.fillStyle = css(rgb);
      context.fillRect(margin + left + gap, margin + top + gap, cell - 2 * gap, cell - 2 * gap);
      if (cell < 26) continue;
      const light = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 125;
      context.fillStyle = light ? "#14171b" : "#ffffff";
      const text = state.by === "count" ? (value < 1e4 ? String(value) : `${Math.round(value / 1000)}k`) : value.toFixed(2).replace(/^0/, "");
      context.fillText(text, margin + left + cell / 2, margin + top + cell / 2);
    }
    context.restore();
  }

  function drawLabels(context) {
    const { margin, side, cell } = geometry;
    context.fillStyle = css(colour("--soft"));
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "left";
    context.fillText("predicted →", margin, 8);
    context.save();
    context.translate(8, margin);
    context.rotate(-Math.PI / 2);
    context.textAlign = "right";
    context.fillText("← true", 0, 0);
    context.restore();
    if (margin === BARE_MARGIN) return;
    const room = margin - 24;
    const labels = [];
    for (let line = 0; line < size; line++) labels.push(cut(context, className(state.order[line]), room));
    for (const [axis, offset] of [["y", state.y], ["x", state.x]]) {
      context.save();
      context.translate(margin, margin);
      if (axis === "x") context.rotate(-Math.PI / 2);
      for (let line = Math.floor(offset / cell); line < size; line++) {
        const middle = (line + 0.5) * cell - offset;
        if (middle < 0) continue;
        if (middle > side) break;
        context.textAlign = axis === "y" ? "right" : "left";
        if (axis === "y") context.fillText(labels[line], -6, middle);
        else context.fillText(labels[line], 6, middle);
      }
      context.restore();
    }
  }

  function cut(context, text, room) {
    if (context.measureText(text).width <= room) return text;
    let length = Math.min(text.length, 40);
    while (length > 1 && context.measureText(`${text.slice(0, length)}…`).width > room) length -= 1;
    return `${text.slice(0, length)}…`;
  }

  function drawLegend(palette, most) {
    const unit = { count: "samples", row: "of the true class", column: "of the predicted class" }[state.by];
    const parts = [["right", "right"], ["wrong", "mistakes"]].map(([kind, text]) => {
      const strip = make("canvas", { width: 256, height: 1, "aria-hidden": "true" });
      const context = strip.getContext("2d");
      for (let tone = 0; tone < 256; tone++) {
        context.fillStyle = css(palette[kind][tone]);
        context.fillRect(tone, 0, 1, 1);
      }
      const top = state.by === "count" ? whole(Math.ceil(most[kind])) : `${(100 * most[kind]).toFixed(0)} %`;
      return make("span", {}, `${text}: 0`, strip, `${top} ${unit}`);
    });
    const { leftOut, largestLeftOut } = data.matrix;
    if (leftOut) parts.push(make("span", {}, `${whole(leftOut)} cells of at most ${samplesIn(largestLeftOut)} are not drawn`));
    legend.replaceChildren(...parts);
  }

  function drawMarks() {
    const { ratio, width } = geometry;
    const context = marks.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, width);
    markOn(context);
  }

  function markOn(context) {
    const { margin, side, cell } = geometry;
    context.save();
    context.beginPath();
    context.rect(margin - 1, margin - 1, side + 2, side + 2);
    context.clip();
    const ink = css(colour("--ink"));
    for (const [spot, strong] of [[state.hovered, false], [state.selected, true]]) {
      if (!spot) continue;
      const left = margin + state.place[spot.column] * cell - state.x;
      const top = margin + state.place[spot.row] * cell - state.y;
      context.fillStyle = ink;
      context.globalAlpha = 0.08;
      if (!strong) {
        context.fillRect(margin, top, side, Math.max(cell, 1));
        context.fillRect(left, margin, Math.max(cell, 1), side);
      }
      context.globalAlpha = 1;
      context.strokeStyle = ink;
      context.lineWidth = strong ? 2 : 1;
      const grow = cell < 8 ? 4 : 0;
      context.strokeRect(left - grow, top - grow, cell + 2 * grow, cell + 2 * grow);
    }
    context.restore();
  }

  function cellAt(x, y) {
    const { margin, side, cell } = geometry;
    if (x < margin || y < margin || x >= margin + side || y >= margin + side) return null;
    const line = Math.floor((y - margin + state.y) / cell);
    const place = Math.floor((x - margin + state.x) / cell);
    return line < size && place < size ? { row: state.order[line], column: state.order[place] } : null;
  }

  function zoomTo(zoom, x = geometry.margin + geometry.side / 2, y = geometry.margin + geometry.side / 2) {
    const before = geometry.cell;
    state.zoom = Math.min(Math.max(zoom, 1), Math.max(1, WIDEST_CELL / geometry.fit));
    const factor = (geometry.fit * state.zoom) / before;
    state.x = (state.x + x - geometry.margin) * factor - (x - geometry.margin);
    state.y = (state.y + y - geometry.margin) * factor - (y - geometry.margin);
    draw();
  }

  function select(row, column) {
    state.selected = { row, column };
    const { cell, side } = geometry;
    for (const [axis, position] of [["y", row], ["x", column]]) {
      const start = state.place[position] * cell;
      if (start < state[axis] || start + cell > state[axis] + side) state[axis] = start + cell / 2 - side / 2;
    }
    draw();
    onSelect(row, column, countAt(row, column));
  }

  function zoomOn(position) {
    zoomTo(Math.max(state.zoom, 24 / geometry.fit));
    select(position, position);
    state.x = state.y = (state.place[position] + 0.5) * geometry.cell - geometry.side / 2;
    draw();
  }

  function setOrder(order) {
    state.order = order;
    state.place = new Array(size);
    order.forEach((position, line) => { state.place[position] = line; });
    draw();
  }

  function tell(spot, x, y) {
    const count = countAt(spot.row, spot.column);
    showTooltip([
      make("b", {}, named(className(spot.row)), spot.row === spot.column ? " recognised" : " → ", spot.row === spot.column ? "" : named(className(spot.column))),
      make("div", {}, samplesIn(count)),
      make("div", {}, `${percent(count, support[spot.row])} of the true class`),
      make("div", {}, `${percent(count, predicted[spot.column])} of the predicted class`),
    ], x, y);
  }

  const pointers = new Map();
  let drag = null;
  const local = (event) => {
    const box = marks.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  marks.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, local(event));
    const [x, y] = local(event);
    drag = { x, y, fromX: state.x, fromY: state.y, moved: false, spread: spread(), zoom: state.zoom };
  });
  function spread() {
    if (pointers.size < 2) return 0;
    const [a, b] = [...pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  }
  marks.addEventListener("pointermove", (event) => {
    const [x, y] = local(event);
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, [x, y]);
    if (drag && drag.spread && pointers.size > 1) {
      drag.moved = true;
      const [a, b] = [...pointers.values()];
      zoomTo((drag.zoom * spread()) / drag.spread, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
      return;
    }
    if (drag && state.zoom > 1.001 && (drag.moved || Math.hypot(x - drag.x, y - drag.y) > 4)) {
      if (!drag.moved) marks.setPointerCapture(event.pointerId);
      drag.moved = true;
      plot.classList.add("dragging");
      state.x = drag.fromX + drag.x - x;
      state.y = drag.fromY + drag.y - y;
      hideTooltip();
      draw();
      return;
    }
    state.hovered = cellAt(x, y);
    drawMarks();
    if (state.hovered && event.pointerType !== "touch") tell(state.hovered, event.clientX, event.clientY);
    else hideTooltip();
  });
  function release(event) {
    pointers.delete(event.pointerId);
    plot.classList.remove("dragging");
  }
  marks.addEventListener("pointerup", (event) => {
    release(event);
    const spot = cellAt(...local(event));
    if (drag && !drag.moved && spot) select(spot.row, spot.column);
    if (!pointers.size) drag = null;
  });
  marks.addEventListener("pointercancel", (event) => { release(event); drag = null; });
  marks.addEventListener("pointerleave", () => { state.hovered = null; hideTooltip(); drawMarks(); });
  marks.addEventListener("dblclick", (event) => zoomTo(state.zoom * 2.5, ...local(event)));
  marks.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the page
    event.preventDefault();
    zoomTo(state.zoom * Math.exp(-event.deltaY / 200), ...local(event));
  }, { passive: false });
  marks.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key in steps) {
      const { row, column } = state.selected ?? { row: state.order[0], column: state.order[0] };
      const [down, across] = state.selected ? steps[event.key] : [0, 0];
      const at = (position, by) => state.order[Math.min(Math.max(state.place[position] + by, 0), size - 1)];
      select(at(row, down), at(column, across));
    } else if (event.key === "+" || event.key === "=") zoomTo(state.zoom * 1.6);
    else if (event.key === "-") zoomTo(state.zoom / 1.6);
    else if (event.key === "0") zoomTo(1);
    else if (event.key === "Enter" && state.selected) document.getElementById("cell-panel").focus();
    else return;
    event.preventDefault();
  });

  const find = make("input", {
    type: "search", list: "class-names", placeholder: "Find a class", "aria-label": "Find a class in the matrix",
    onchange: () => {
      const position = names.indexOf(find.value);
      if (position >= 0) zoomOn(position);
    },
  });
  const button = (text, label, action) => make("button", { type: "button", "aria-label": label, title: label, onclick: action }, text);
  const controls = make("div", { class: "controls" },
    choice("Shown in the matrix", [["count", "Samples"], ["row", "Share of true"], ["column", "Share of predicted"]], (by) => { state.by = by; draw(); }),
    data.order && size > 2
      ? choice("Order of the classes", [["class", "Class order"], ["similar", "By similarity"]], (by) => setOrder(by === "class" ? inOrder : data.order))
      : null,
    make("label", {}, make("input", { type: "checkbox", onchange: (event) => { state.mistakesOnly = event.target.checked; draw(); } }), "mistakes only"),
    make("div", { class: "choice", role: "group", "aria-label": "Zoom" },
      button("−", "Zoom out", () => zoomTo(state.zoom / 1.6)), button("+", "Zoom in", () => zoomTo(state.zoom * 1.6)), button("All", "Show all classes", () => zoomTo(1))),
    size > 20 ? find : null);
  if (size > 20) controls.append(make("datalist", { id: "class-names" }, ...names.slice(0, 5000).map((name) => make("option", { value: name }))));
  host.append(controls, plot, legend);
  // Paper gets a picture of the screen, made to fit: what is drawn while it is laid out stays blank.
  new ResizeObserver(() => { if (!onPaper && (!geometry || plot.clientWidth !== geometry.width)) draw(); }).observe(plot);
  addEventListener("beforeprint", () => { onPaper = true; });
  addEventListener("afterprint", () => { onPaper = false; });
  draw();
  return { draw, select };
}
