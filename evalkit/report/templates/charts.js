// The two diagrams of confidence, as SVG.

function draw(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const ticksFrom = (start) => [0, 1, 2, 3, 4].map((step) => Number((start + (step * (1 - start)) / 4).toFixed(3)));

function frame(width, height, label, start = 0) {
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const area = { left: 48, right: width - 12, top: 10, bottom: height - 40 };
  const x = (value) => area.left + ((value - start) / (1 - start)) * (area.right - area.left);
  for (const tick of ticksFrom(start)) {
    svg.append(draw("text", { x: x(tick), y: area.bottom + 16, "text-anchor": tick === 1 ? "end" : "middle" }, String(tick)));
  }
  svg.append(draw("text", { x: x((1 + start) / 2), y: area.bottom + 33, "text-anchor": "middle" }, "confidence"));
  return { svg, area, x };
}

function hoverable(node, lines) {
  node.addEventListener("pointermove", (event) => showTooltip(lines.map((line) => make("div", {}, line)), event.clientX, event.clientY));
  node.addEventListener("pointerleave", hideTooltip);
  return node;
}

// Both axes begin where the bins do: most of them are near 1. Bins are of equally many samples.
function reliabilityDiagram(width) {
  const bins = data.reliability;
  const start = Math.min(0.8, Math.floor(10 * Math.min(...bins.map((bin) => Math.min(bin.confidence, bin.low)))) / 10);
  const { svg, area, x } = frame(width, Math.min(width, 380), "Reliability diagram: accuracy by confidence", start);
  const y = (value) => area.bottom - ((value - start) / (1 - start)) * (area.bottom - area.top);
  for (const tick of ticksFrom(start)) {
    svg.append(draw("line", { class: "axis", x1: area.left, x2: area.right, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: area.left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  svg.append(draw("line", { class: "ideal", x1: x(start), y1: y(start), x2: x(1), y2: y(1) }));
  const dots = bins.map((bin) => {
    const [from, to] = [Math.max(bin.from, start), bin.to];
    const [least, most] = [Math.min(bin.accuracy, bin.confidence), Math.max(bin.accuracy, bin.confidence)];
    svg.append(draw("rect", { class: "gap", x: x(from), width: Math.max(2, x(to) - x(from)), y: y(most), height: Math.max(0, y(least) - y(most)) }));
    svg.append(draw("line", { class: "whisker", x1: x(bin.confidence), x2: x(bin.confidence), y1: y(bin.low), y2: y(bin.high) }));
    return draw("circle", { class: "right", cx: x(bin.confidence), cy: y(bin.accuracy), r: 4 });
  });
  svg.append(...dots);
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const far = ({ cx, cy }) => Math.hypot(event.clientX - box.left - cx.baseVal.value, event.clientY - box.top - cy.baseVal.value);
    return dots.reduce((best, dot, at) => (far(dot) < far(dots[best]) ? at : best), 0);
  };
  const leave = () => {
    dots.forEach((dot) => dot.classList.remove("pointed"));
    hideTooltip();
  };
  const hit = draw("rect", { class: "whole-hit", x: area.left, width: area.right - area.left, y: area.top, height: area.bottom - area.top });
  hit.addEventListener("pointermove", (event) => {
    const at = nearest(event);
    const bin = bins[at];
    leave();
    dots[at].classList.add("pointed");
    showTooltip([
      `confidence ${fraction(bin.from)} to ${fraction(bin.to)}: ${samplesIn(bin.samples)}`,
      `mean confidence ${fraction(bin.confidence)}`,
      `accuracy ${fraction(bin.accuracy)}, interval ${fraction(bin.low)} to ${fraction(bin.high)}`,
    ].map((line) => make("div", {}, line)), event.clientX, event.clientY);
  });
  hit.addEventListener("pointerleave", leave);
  svg.append(hit);
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

function calibrationError() {
  if (!data.ece) return ".";
  const { value, low, high } = data.ece;
  return `, on average ${fraction(value)} (ECE${low === null ? "" : `, interval ${fraction(low)} to ${fraction(high)}`}).`;
}

function confidenceCharts(host) {
  const charts = [
    ["Reliability", `Accuracy by confidence, in ${data.reliability.length} ${data.reliability.length === 1 ? "bin" : "bins"} of about equally many samples, with ${data.level} intervals. On the dashed line confidence means what it says; the shade is the gap${calibrationError()}`, reliabilityDiagram],
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
