// The page: filters, the chart, the table of artifacts, and which artifact is open.

const DATA = JSON.parse(byId("data").textContent);
const RUNS = DATA.runs.map((run, id) => ({ ...run, id }));
const PALETTE = new Palette(RUNS);
const FIRST_ROWS = 500;
const state = { networks: new Set(PALETTE.networks), methods: new Set(PALETTE.methods), most: FIRST_ROWS, open: null, chart: null, turn: 0, drawing: Promise.resolve() };
const rowOf = new Map(); // run -> its row in the table
let fronts = new Set();

const shownRuns = () => RUNS.filter((run) => state.networks.has(run.network) && state.methods.has(run.method));

function filterGroup(title, key, values, markOf) {
  const boxes = values.map((value) => {
    const box = make("input", { type: "checkbox", checked: true, value });
    box.addEventListener("change", () => {
      box.checked ? state[key].add(value) : state[key].delete(value);
      update();
    });
    const count = RUNS.filter((run) => run[key.slice(0, -1)] === value).length;
    return make("label", {}, box, markOf(value), make("span", {}, value), make("span", { className: "number", "aria-label": counted(count, "artifact") }, String(count)));
  });
  return make("fieldset", { id: key }, make("legend", {}, title), ...boxes);
}

function drawFilters() {
  byId("filter-groups").replaceChildren(
    filterGroup("Networks", "networks", PALETTE.networks, (name) => PALETTE.mark(PALETTE.shape(name), "var(--soft)")),
    filterGroup("Methods", "methods", PALETTE.methods, (name) => PALETTE.mark("square", PALETTE.color(name))),
  );
  byId("filters").querySelector("details").open = matchMedia("(min-width: 60.01rem)").matches;
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("reset").addEventListener("click", () => {
    for (const box of byId("filters").querySelectorAll("input")) box.checked = true;
    state.networks = new Set(PALETTE.networks);
    state.methods = new Set(PALETTE.methods);
    update();
  });
}

// Axes that no run has a figure for are not offered.
function drawChoices() {
  const fill = (id, axes) => {
    const entries = Object.entries(axes).filter(([, axis]) => RUNS.some((run) => axis.of(run) !== null));
    byId(id).replaceChildren(...entries.map(([value, axis]) => make("option", { value }, axis.short)));
  };
  fill("x", ACROSS);
  fill("y", UP);
  byId("front").replaceChildren(
    make("option", { value: "each" }, PALETTE.networks.length === 1 ? "shown" : "of each network"),
    ...(PALETTE.networks.length === 1 ? [] : [make("option", { value: "all" }, "of all together")]),
    make("option", { value: "none" }, "hidden"),
  );
  for (const id of ["x", "y", "front"]) byId(id).addEventListener("change", update);
}

const RUN_COLUMNS = [
  { title: "Network", text: (run) => run.network, cell: (run) => make("button", { type: "button", className: "link" }, run.network) },
  { title: "Method", words: true, text: (run) => run.method, cell: methodCell },
  { title: "Options", text: (run) => run.options, known: (run) => run.options, cell: (run) => make("code", {}, run.options || NONE) },
  { title: "Size", number: true, value: (run) => run.bytes, text: (run) => size(run.bytes) },
  { title: "Smaller", number: true, value: (run) => run.ratio, text: (run) => times(run.ratio), hint: "dense fp32 file divided by the weights file" },
  { title: "Bits", number: true, value: (run) => run.bits, text: (run) => fixed(run.bits, 2), hint: "stored bits a weight, in the compressed layers" },
  { title: "Top-1", number: true, known: (run) => run.top1 !== null, value: (run) => run.top1, text: (run) => percent(run.top1) },
  { title: "Points lost", number: true, known: (run) => run.lost !== null, value: (run) => run.lost, text: lost },
  { title: "KL", number: true, known: (run) => run.kl !== null, value: (run) => run.kl, text: (run) => significant(run.kl), hint: "KL(dense ‖ compressed) in nats" },
  { title: "mAP", number: true, known: (run) => run.map !== null, value: (run) => run.map, text: (run) => percent(run.map), hint: "retrieval: mean average precision" },
  { title: "mAP lost", number: true, known: (run) => run.map !== null, value: (run) => run.map_lost, text: (run) => loss(run.map_lost, run.map_ci95) },
  { title: "SQNR dB", number: true, known: (run) => run.sqnr !== null, value: (run) => run.sqnr, text: (run) => fixed(run.sqnr, 2), hint: "mean over the layers, rows counting alike" },
  { title: "Front", value: (run) => (fronts.has(run) ? 0 : 1), text: (run) => (fronts.has(run) ? "yes" : NONE),
    cell: (run) => (fronts.has(run) ? make("span", { className: "front" }, "● yes") : NONE), hint: "no artifact in the chart is better in both directions" },
  { title: "Folder", words: true, text: (run) => run.name },
];

function methodCell(run) {
  const cell = make("span", { className: "row" }, PALETTE.mark(PALETTE.shape(run.network), PALETTE.color(run.method)), run.method);
  cell.style.margin = "0";
  cell.style.flexWrap = "nowrap";
  return cell;
}

// Columns that no row fills are left out.
const SHOWN_COLUMNS = RUN_COLUMNS.filter((column) => !column.known || RUNS.some(column.known));

const runTable = sortableTable(byId("runs"), "Artifacts as filtered. Choose a row to see its layers; headings sort.", SHOWN_COLUMNS, {
  column: SHOWN_COLUMNS.findIndex((column) => column.title === "Size"),
  most: () => state.most,
  drawn: markOpenRow,
  row(element, run) {
    rowOf.set(run, element);
    element.addEventListener("click", () => openRun(run.id));
    for (const name of ["mouseenter", "focusin"]) element.addEventListener(name, () => state.chart?.focus(run));
    for (const name of ["mouseleave", "focusout"]) element.addEventListener(name, () => state.chart?.focus(null));
  },
});

function markOpenRow() {
  for (const [run, row] of rowOf) {
    row.classList.toggle("open", run.id === state.open);
    row.querySelector("button").setAttribute("aria-expanded", String(run.id === state.open));
  }
}

function update() {
  const shown = shownRuns();
  const across = ACROSS[byId("x").value];
  const up = UP[byId("y").value];
  const drawable = up ? shown.filter((run) => across.of(run) !== null && up.of(run) !== null) : [];
  const together = byId("front").value === "all";
  const lines = byId("front").value === "none" ? [] : paretoFronts(drawable, across, up, (run) =>
    JSON.stringify([together ? "" : run.network, up === UP.sqnr ? "" : up === UP.kl ? run.kl_on : up === UP.map_lost ? run.map_on : [run.data, run.images]]));
  fronts = new Set(lines.flatMap((line) => line.front));
  rowOf.clear();
  runTable.show(shown);
  byId("count").textContent = `${shown.length.toLocaleString("en")} of ${counted(RUNS.length, "artifact")}`;
  byId("more").hidden = shown.length <= state.most;
  byId("more").textContent = `Show all ${shown.length.toLocaleString("en")} rows`;
  drawChart(drawable, shown.length - drawable.length, across, up, lines);
}

function drawChart(drawable, missing, across, up, lines) {
  const note = [];
  if (!up) note.push("No artifact has an accuracy, a divergence or an error to show.");
  else if (!drawable.length) note.push(`No artifact that the filters leave has a figure for ${up.short}.`);
  else note.push(`Better is ${up.better > 0 ? "up" : "down"} and to the ${across.better > 0 ? "right" : "left"}.`);
  if (drawable.length && missing) note.push(`${counted(missing, "artifact")} without ${up.short} left out.`);
  if (drawable.length && drawable.some((run) => (up.ci95?.(run) ?? null) !== null)) note.push("Bars are 95% confidence intervals.");
  if (drawable.length && up === UP.top1) note.push("Dashed: the dense networks.");
  if (lines.length && drawable.length) note.push("Lines join what nothing beats on the same images.");
  byId("chart-note").textContent = note.join(" ");
  byId("chart").hidden = !drawable.length;
  state.chart = null;
  const turn = ++state.turn;
  // One drawing after the other, and none that a later choice has overtaken.
  state.drawing = state.drawing.then(async () => {
    if (turn !== state.turn || !drawable.length) return;
    state.chart = await drawPareto(byId("chart"), DATA.charts.pareto, {
      shown: drawable, palette: PALETTE, across, up, fronts: lines, choose: openRun,
      hover: (run) => rowOf.forEach((row, other) => row.classList.toggle("lit", other === run)),
    });
  });
}

// The address holds the open artifact, so that the browser's back button works.
function openRun(id) {
  showTip(null);
  if (location.hash === `#artifact-${id}`) showOpen(id);
  else location.hash = `artifact-${id}`;
}

function showOpen(id) {
  state.open = id;
  showDetails(byId("details"), RUNS[id], {
    columns: DATA.layer_columns, template: DATA.charts.layers, palette: PALETTE, close: () => closeRun(true),
  });
  markOpenRow();
  byId("details-title").focus({ preventScroll: true });
  byId("details").scrollIntoView({ block: "start" });
}

function closeRun(goBack) {
  const run = RUNS[state.open];
  state.open = null;
  byId("details").hidden = true;
  markOpenRow();
  if (!goBack) return;
  history.replaceState(null, "", location.pathname + location.search);
  (rowOf.get(run)?.querySelector("button") ?? byId("artifacts")).focus();
}

function followAddress() {
  const match = /^#artifact-(\d+)$/.exec(location.hash);
  if (match && RUNS[Number(match[1])]) showOpen(Number(match[1]));
  else if (state.open !== null && !location.hash) closeRun(false);
}

// Of each network: the smallest file that is surely less than a point worse.
function drawNetworks() {
  const rows = PALETTE.networks.map((network) => {
    const runs = RUNS.filter((run) => run.network === network);
    const close = runs.filter((run) => run.lost !== null && run.lost + (run.ci95 ?? 0) < 1).sort((a, b) => a.bytes - b.bytes);
    return { network, runs, best: close[0] ?? null, dense: runs.reduce((most, run) => (run.dense_top1 !== null && (run.images ?? 0) > (most.dense_top1 === null ? 0 : most.images) ? run : most), runs[0]) };
  });
  const columns = [
    { title: "Network", text: (row) => row.network },
    { title: "Artifacts", number: true, value: (row) => row.runs.length, text: (row) => String(row.runs.length) },
    { title: "Dense file", number: true, value: (row) => row.dense.dense_bytes, text: (row) => size(row.dense.dense_bytes) },
    { title: "Dense top-1", number: true, value: (row) => row.dense.dense_top1, text: (row) => percent(row.dense.dense_top1) },
    { title: "Smallest within a point", number: true, value: (row) => row.best?.bytes ?? null, text: (row) => (row.best ? size(row.best.bytes) : NONE),
      hint: "the smallest file whose loss is less than one point at the far end of its confidence interval",
      cell: (row) => (row.best ? make("button", { type: "button", className: "link" }, size(row.best.bytes)) : NONE) },
    { title: "Smaller", number: true, value: (row) => row.best?.ratio ?? null, text: (row) => times(row.best?.ratio) },
    { title: "Points lost", number: true, value: (row) => row.best?.lost ?? null, text: (row) => (row.best ? lost(row.best) : NONE) },
    { title: "Method", words: true, text: (row) => row.best?.method ?? NONE },
  ];
  sortableTable(byId("networks"), "Of each network the smallest file that loses less than one point, at the far end of its confidence interval.", columns, {
    row(element, row) {
      if (row.best) element.addEventListener("click", () => openRun(row.best.id));
    },
  }).show(rows);
}

function drawProblems() {
  byId("problems").hidden = !DATA.problems.length;
  byId("problems").querySelector("ul").replaceChildren(
    ...DATA.problems.map(([name, reason]) => make("li", {}, make("code", {}, name), ": " + reason)));
}

function setUpTheme() {
  const root = document.documentElement;
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    button.textContent = isDark() ? "☀ Light" : "☾ Dark";
    button.setAttribute("aria-label", "Dark theme");
  };
  // Storage may be closed to local files; the choice then lasts as long as the page.
  try { root.dataset.theme = localStorage.getItem("vqzoo-theme") ?? ""; } catch { root.dataset.theme = ""; }
  if (!root.dataset.theme) delete root.dataset.theme;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("vqzoo-theme", root.dataset.theme); } catch { /* as above */ }
    show();
  });
  system.addEventListener("change", show);
  show();
}

const measured = unique(RUNS.filter((run) => run.images !== null).map((run) => `${counted(run.images, "image")} of ${run.data}`));
byId("summary").textContent = `${counted(RUNS.length, "artifact")} of ${counted(PALETTE.networks.length, "network")}, ${counted(PALETTE.methods.length, "method")}` +
  (measured.length ? `; measured on ${measured.slice(0, 3).join(", ")}${measured.length > 3 ? " and more" : ""}` : "");
byId("version").textContent = DATA.version;
byId("licence").hidden = !RUNS.some((run) => run.examples?.data === "fmnist" && run.examples.shown.length);
byId("more").addEventListener("click", () => {
  state.most = Infinity;
  update();
});
setUpTheme();
drawFilters();
drawChoices();
drawNetworks();
drawProblems();
update();
addEventListener("hashchange", followAddress);
followAddress();
