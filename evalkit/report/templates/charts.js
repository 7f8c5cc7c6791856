// The two diagrams of confidence, as SVG.

function draw(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function frame(width, height, label) {
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const area = { left: 44, right: width - 12, top: 10, bottom: height - 40 };
  const x = (value) => area.left + value * (area.right - area.left);
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(draw("text", { x: x(tick), y: area.bottom + 16, "text-anchor": tick === 1 ? "end" : "middle" }, String(tick)));
  }
  svg.append(draw("text", { x: x(0.5), y: area.bottom + 33, "text-anchor": "middle" }, "confidence"));
  return { svg, area, x };
}

function hoverable(node, lines) {
  node.addEventListener("pointermove", (event) => showTooltip(lines.map((line) => make("div", {}, line)), event.clientX, event.clientY));
  node.addEventListener("pointerleave", hideTooltip);
  return node;
}

function reliabilityDiagram(width) {
  const { svg, area, x } = frame(width, Math.min(width, 380), "Reliability diagram: accuracy by confidence");
  const y = (value) => area.bottom - value * (area.bottom - area.top);
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(draw("line", { class: "axis", x1: area.left, x2: area.right, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: area.left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  svg.append(draw("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }));
  const most = Math.max(...data.reliability.map((bin) => bin.samples));
  for (const bin of data.reliability) {
    const [from, to] = [Math.min(bin.accuracy, bin.confidence), Math.max(bin.accuracy, bin.confidence)];
    svg.append(draw("rect", { class: "gap", x: x(bin.from) + 1, width: x(bin.to) - x(bin.from) - 2, y: y(to), height: Math.max(0, y(from) - y(to)) }));
    svg.append(draw("line", { class: "whisker", x1: x(bin.confidence), x2: x(bin.confidence), y1: y(bin.low), y2: y(bin.high) }));
    svg.append(draw("circle", { class: "right", cx: x(bin.confidence), cy: y(bin.accuracy), r: 3 + 5 * Math.sqrt(bin.samples / most) }));
  }
  for (const bin of data.reliability) {
    svg.append(hoverable(draw("rect", { class: "hit", x: x(bin.from), width: x(bin.to) - x(bin.from), y: area.top, height: area.bottom - area.top }), [
      `confidence ${bin.from} to ${bin.to}: ${samplesIn(bin.samples)}`,
      `mean confidence ${fraction(bin.confidence)}`,
      `accuracy ${fraction(bin.accuracy)}, interval ${fraction(bin.low)} to ${fraction(bin.high)}`,
    ]));
  }
  return svg;
}

function confidenceHistogram(width) {
  const { svg, area, x } = frame(width, Math.min(width, 380), "Histogram of confidence, right answers up, mistakes down");
  const middle = (area.top + area.bottom) / 2;
  const half = (area.bottom - area.top) / 2 - 4;
  for (const [kind, name, direction] of [["right", "right", -1], ["wrong", "mistakes", 1]]) {
    const bins = data.histogram[kind];
    const total = bins.reduce((sum, value) => sum + value, 0);
    const most = Math.max(...bins, 1);
    bins.forEach((value, at) => {
      const [from, to] = [at / bins.length, (at + 1) / bins.length];
      const height = (half * value) / most;
      svg.append(draw("rect", { class: kind, x: x(from) + 0.5, width: x(to) - x(from) - 1, y: direction < 0 ? middle - height : middle, height }));
      if (!total) return;
      svg.append(hoverable(draw("rect", { class: "hit", x: x(from), width: x(to) - x(from), y: direction < 0 ? area.top : middle, height: half + 4 }), [
        `confidence ${from.toFixed(3)} to ${to.toFixed(3)}`,
        `${whole(value)} of ${whole(total)} ${name} (${percent(value, total)})`,
      ]));
    });
    svg.append(draw("text", { x: area.left + 4, y: direction < 0 ? area.top + 12 : area.bottom - 6 }, `${name}: ${whole(total)}`));
  }
  svg.append(draw("line", { class: "axis", x1: area.left, x2: area.right, y1: middle, y2: middle }));
  return svg;
}

function confidenceCharts(host) {
  const charts = [
    ["Reliability", `Accuracy of the samples in each tenth of confidence, with ${data.level} intervals. On the dashed line confidence means what it says; the shade is the gap.`, reliabilityDiagram],
    ["Confidence", "How sure the model is where it is right (up) and where it is wrong (down). Each side has its own height.", confidenceHistogram],
  ];
  for (const [title, text, paint] of charts) {
    const place = make("div");
    host.append(make("figure", { class: "chart" }, make("figcaption", {}, make("b", {}, title), text), place));
    let width = 0;
    new ResizeObserver(() => {
      if (place.clientWidth === width || !place.clientWidth) return;
      width = place.clientWidth;
      place.replaceChildren(paint(width));
    }).observe(place);
  }
}
