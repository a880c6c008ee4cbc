// The charts, by Vega-Lite. `ast: true` runs its expressions without eval, which the page's policy forbids.

// About as far from white as from black, so that they serve both themes.
const COLORS = ["#3b7dd8", "#d9730d", "#1f9d63", "#c553a8", "#8a63d2", "#d9434e", "#1592a5", "#a8703a", "#8a8f1f", "#6b7a90"];
const SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"];
const MARKS = {
  circle: "M7 1.5a5.5 5.5 0 1 0 .01 0Z", square: "M2 2h10v10H2Z", "triangle-up": "M7 1.5 13 12H1Z",
  diamond: "M7 .5 12 7 7 13.5 2 7Z", cross: "M5 1h4v4h4v4H9v4H5V9H1V5h4Z", "triangle-down": "M7 12.5 1 2h12Z",
  "triangle-right": "M12.5 7 2 13V1Z", "triangle-left": "M1.5 7 12 1v12Z",
};
const OTHERS = "#8d95a5";

const unique = (values) => [...new Set(values)];

// What the axes can show. `better` is the sign of improvement along an axis.
const ACROSS = {
  bytes: { title: "Size of the weights file", short: "file size", of: (run) => run.bytes, better: -1, labels: "bytes" },
  ratio: { title: "Times smaller than the dense fp32 file", short: "times smaller", of: (run) => run.ratio, better: 1, labels: "times" },
  bits: { title: "Stored bits a weight, in the compressed layers", short: "bits a weight", of: (run) => run.bits, better: -1, labels: "plain" },
};
const UP = {
  lost: { title: "Points of top-1 lost", short: "points lost", of: (run) => run.lost, ci95: (run) => run.ci95, better: -1, scale: { type: "symlog", constant: 0.5 },
    ticks: [-5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20, 40, 80] },
  top1: { title: "Top-1 accuracy (%)", short: "top-1", of: (run) => run.top1, better: 1, scale: {} },
  kl: { title: "KL(dense ‖ compressed) in nats", short: "KL", of: (run) => (run.kl > 0 ? run.kl : null), better: -1, scale: { type: "log" } },
  map_lost: { title: "Points of retrieval mAP lost", short: "mAP lost", of: (run) => run.map_lost, ci95: (run) => run.map_ci95, better: -1, scale: { type: "symlog", constant: 0.5 },
    ticks: [-5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20, 40, 80] },
  sqnr: { title: "SQNR of the weights (dB), rows counting alike", short: "SQNR", of: (run) => run.sqnr, better: 1, scale: {} },
};
const AXIS_LABELS = {
  bytes: "datum.value >= 1e9 ? format(datum.value / 1e9, '~r') + ' GB' : datum.value >= 1e6 ? format(datum.value / 1e6, '~r') + ' MB' : format(datum.value / 1e3, '~r') + ' kB'",
  times: "format(datum.value, '~r') + '×'",
  plain: "format(datum.value, '~') ",
};

// The runs that no run of the same group beats in both directions, by increasing x.
// Only figures of the same images compare: they are part of a group's name.
function paretoFronts(runs, across, up, groupOf) {
  const groups = new Map();
  for (const run of runs) {
    const key = groupOf(run);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(run);
  }
  const fronts = [];
  for (const [group, members] of groups) {
    const ordered = [...members].sort(
      (a, b) => across.better * (across.of(b) - across.of(a)) || up.better * (up.of(b) - up.of(a)),
    );
    let best = -Infinity;
    const front = ordered.filter((run) => {
      const value = up.better * up.of(run);
      if (value <= best) return false;
      best = value;
      return true;
    });
    fronts.push({ group, front });
  }
  return fronts;
}

class Palette {
  constructor(runs) {
    this.methods = unique(runs.map((run) => run.method)).sort();
    this.networks = unique(runs.map((run) => run.network)).sort();
  }
  color(method) {
    return COLORS[this.methods.indexOf(method) % COLORS.length];
  }
  shape(network) {
    return this.networks.length === 1 ? "circle" : SHAPES[this.networks.indexOf(network) % SHAPES.length];
  }
  // A small picture for a filter's label: a shape, or a patch of colour.
  mark(shape, color) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    for (const [name, value] of [["viewBox", "0 0 14 14"], ["class", "mark"], ["aria-hidden", "true"]]) svg.setAttribute(name, value);
    path.setAttribute("d", MARKS[shape]);
    path.setAttribute("fill", color);
    svg.append(path);
    return svg;
  }
}

// Round values of a logarithmic axis, at least four of them where there are as many.
function logTicks(low, high) {
  let ticks = [];
  for (const digits of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8], range(10, 100).map((tenths) => tenths / 10)]) {
    const decades = range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1);
    ticks = decades.flatMap((decade) => digits.map((digit) => Number(`${digit}e${decade}`)));
    ticks = ticks.filter((tick) => low / 1.1 <= tick && tick <= high * 1.1);
    if (ticks.length >= 4) break;
  }
  return ticks;
}

const range = (start, end) => Array.from({ length: end - start }, (_, index) => start + index);

// A copy of a chart's template that measures text in the font that the page shows.
function themed(template) {
  const spec = structuredClone(template);
  spec.config.font = getComputedStyle(document.body).fontFamily;
  return spec;
}

// From the least to the largest value, and never empty.
function domain(values, logarithmic) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (low < high) return [low, high];
  return logarithmic ? [low / 1.3, high * 1.3] : [low - 1, high + 1];
}

const drawn = new Map(); // element -> the view in it

async function draw(element, spec, tooltip) {
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, tooltip };
  drawn.get(element)?.finalize();
  const { view } = await vegaEmbed(element, spec, options);
  drawn.set(element, view);
  return view;
}

// Draw the runs; `choose(run)` when one is chosen, `hover(run or null)` while one is pointed at.
async function drawPareto(element, template, { shown, palette, across, up, fronts, choose, hover }) {
  const spec = themed(template);
  const points = shown.map((run) => ({
    id: run.id, x: across.of(run), y: up.of(run), method: run.method, network: run.network,
    low: (up.ci95?.(run) ?? null) !== null ? up.of(run) - up.ci95(run) : null,
    high: (up.ci95?.(run) ?? null) !== null ? up.of(run) + up.ci95(run) : null,
    label: `${run.name}: ${run.network}, ${run.method}, ${size(run.bytes)}, ${up.short} ${significant(up.of(run))}`,
  }));
  const networks = unique(shown.map((run) => run.network));
  spec.datasets.points = points;
  spec.datasets.lines = fronts.flatMap(({ group, front }) => front.map((run) => ({ group, x: across.of(run), y: up.of(run) })));
  if (up.ci95) spec.datasets.references = [{ y: 0 }];
  if (up === UP.top1) {
    spec.datasets.references = unique(shown.map((run) => run.dense_top1)).filter((y) => y !== null).slice(0, 8).map((y) => ({ y }));
  }
  spec.encoding.x.title = across.title;
  Object.assign(spec.encoding.x.scale, { type: "log", domain: domain(points.map((point) => point.x), true) });
  spec.encoding.x.axis = { labelExpr: AXIS_LABELS[across.labels], values: logTicks(...spec.encoding.x.scale.domain) };
  const heights = points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]);
  heights.push(...spec.datasets.references.map((line) => line.y));
  Object.assign(spec.encoding.y.scale, up.scale, { domain: domain(heights, up.scale.type === "log") });
  const ticks = up.scale.type === "log" ? logTicks(...spec.encoding.y.scale.domain) : up.ticks;
  spec.encoding.y.title = up.title;
  spec.encoding.y.axis = { labelExpr: AXIS_LABELS.plain, ...(ticks ? { values: ticks } : {}) };
  const marks = spec.layer.find((layer) => layer.name === "points").encoding;
  const methods = palette.methods;
  marks.color.scale = { domain: methods, range: methods.map((method) => palette.color(method)) };
  marks.shape.scale = { domain: networks, range: networks.map((network) => palette.shape(network)) };
  if (element.clientWidth < 500) spec.height = 330;
  const view = await draw(element, spec, (_, event, item) => {
    const run = item?.datum?.id === undefined ? null : shown.find((one) => one.id === item.datum.id);
    showTip(run && runTip(run), event?.clientX, event?.clientY);
    hover(run ?? null);
  });
  view.addEventListener("click", (_, item) => {
    if (item?.datum?.id !== undefined) choose(item.datum.id);
  });
  makeFocusable(element, points, choose, hover, shown);
  return {
    focus(run) {
      const value = run && shown.includes(run) ? [{ x: across.of(run), y: up.of(run) }] : [];
      view.data("focus", value).runAsync();
    },
  };
}

// One tab stop for all points; the arrow keys go from one to the next, by increasing x.
function makeFocusable(element, points, choose, hover, shown) {
  const paths = [...element.querySelectorAll(".points_marks path")].filter((path) => path.__data__?.datum?.id !== undefined);
  const place = (path) => path.__data__.datum;
  paths.sort((a, b) => place(a).x - place(b).x || place(a).y - place(b).y);
  const stop = (index) => paths.forEach((path, other) => path.setAttribute("tabindex", other === index ? "0" : "-1"));
  stop(0);
  paths.forEach((path, index) => {
    path.setAttribute("role", "button");
    path.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -index, End: paths.length - 1 - index }[event.key];
      if (step !== undefined) {
        event.preventDefault();
        const next = (index + step + paths.length) % paths.length;
        stop(next);
        paths[next].focus();
      } else if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        choose(place(path).id);
      } else if (event.key === "Escape") showTip(null);
    });
    path.addEventListener("focus", () => {
      if (!path.matches(":focus-visible")) return;
      const box = path.getBoundingClientRect();
      const run = shown.find((one) => one.id === place(path).id);
      showTip(runTip(run), box.right, box.bottom);
      hover(run);
    });
    path.addEventListener("blur", () => {
      showTip(null);
      hover(null);
    });
  });
}

// Bars of {name, value, method, tip}, drawn from the top.
async function drawBars(element, template, bars, { title, colors }) {
  const spec = themed(template);
  const longest = element.clientWidth < 500 ? 16 : 36;
  spec.datasets.bars = bars.map(({ name, value, method }, place) => ({ name, value, method, place }));
  spec.height = 19 * unique(bars.map((bar) => bar.name)).length;
  spec.encoding.x.title = title;
  spec.encoding.y.axis.labelExpr = `length(datum.label) > ${longest} ? '…' + slice(datum.label, -${longest - 1}) : datum.label`;
  spec.encoding.color.scale = { domain: [...colors.keys()], range: [...colors.values()] };
  await draw(element, spec, (_, event, item) => {
    const bar = item?.datum?.place === undefined ? null : bars[item.datum.place];
    showTip(bar && bar.tip(), event?.clientX, event?.clientY);
  });
}

function showTip(content, x, y) {
  const tip = byId("tip");
  tip.hidden = !content;
  if (!content) return;
  tip.replaceChildren(content);
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, x + 14 + box.width > innerWidth ? x - box.width - 14 : x + 14) + "px";
  tip.style.top = Math.max(4, y + 14 + box.height > innerHeight ? y - box.height - 10 : y + 14) + "px";
}

function runTip(run) {
  const figures = [size(run.bytes), `${times(run.ratio)} smaller`];
  if (run.lost !== null) figures.push(`${lost(run)} points lost`);
  if (run.kl !== null) figures.push(`KL ${significant(run.kl)}`);
  return make("div", {},
    make("p", {}, make("strong", {}, `${run.network}, ${run.method}`)),
    make("p", {}, figures.join(" · ")),
    make("code", {}, run.command));
}
