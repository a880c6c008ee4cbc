// One artifact: its figures, its layers and its examples.

const BAR_KINDS = {
  bytes: { label: "bytes", title: "Stored bytes", of: (layer) => layer.bytes },
  bits: { label: "bits a weight", title: "Stored bits a weight", of: (layer) => layer.bits },
  sqnr: { label: "SQNR", title: "SQNR of the decoded weight (dB)", of: (layer) => layer.sqnr },
  loss: { label: "predicted loss", title: "Predicted change of the logits (squared, halved)", of: (layer) => layer.loss },
};
const KINDS = {
  lost: { words: "right before, wrong after", style: "bad" },
  gained: { words: "wrong before, right after", style: "good" },
  changed: { words: "another answer", style: "" },
};

// Draw an artifact into the section of details. `columns` names the values of a layer's row.
function showDetails(section, run, { columns, template, palette, close }) {
  const layers = run.layers.map((row) => Object.fromEntries(columns.map((name, index) => [name, row[index]])));
  const total = layers.reduce((sum, layer) => sum + layer.bytes, 0);
  const title = make("h2", { id: "details-title", tabIndex: -1 }, `${run.network}, ${run.method}: ${size(run.bytes)}`);
  const closing = make("button", { type: "button", id: "close" }, "Back to the table");
  closing.addEventListener("click", close);
  section.replaceChildren(
    make("div", { className: "bar" }, title, closing),
    make("p", { className: "note" }, `Folder ${run.name}`),
    commandBox(run.command),
    facts(run),
    make("h3", {}, "Where the bytes went"),
  );
  section.hidden = false;
  section.append(...barPicture(run, layers, total, template, palette));
  section.append(make("h3", {}, "Layers"), layerTable(layers, total), ...leftDense(run));
  section.append(make("h3", {}, "Images whose answer changed"), ...gallery(run.examples));
  drawPicture(section);
}

function commandBox(command) {
  const copy = make("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(copy.previousElementSibling);
      copy.textContent = "Selected";
    }
  });
  return make("div", { className: "command" }, make("code", {}, command), copy);
}

function facts(run) {
  const rows = [
    ["Weights file", `${size(run.bytes)} of ${size(run.dense_bytes)}`],
    ["Times smaller", `${times(run.ratio)} (layers ${times(run.ratio_layers)})`],
    ["Bits a weight", fixed(run.bits, 2)],
    ["Top-1", run.top1 === null ? null : `${percent(run.top1)}, dense ${percent(run.dense_top1)}`],
    ["Points lost", run.lost === null ? null : lost(run)],
    ["Measured on", run.images === null ? null : `${counted(run.images, "image")} of ${run.data}`],
    ["KL(dense ‖ compressed)", run.kl === null ? null : `${significant(run.kl)} nats on ${run.kl_on}`],
    ["Retrieval mAP", run.map === null ? null : `${percent(run.map)}, dense ${percent(run.dense_map)}; lost ${loss(run.map_lost, run.map_ci95)}`],
    ["In the dense network's database", run.map === null ? null : `${percent(run.across_map)}; lost ${loss(run.across_lost, run.across_ci95)}`],
    ["Retrieval measured on", run.map_on],
    ["Same answers", run.agree === null ? null : percent(run.agree)],
    ["Predicted change of logits", run.predicted === null ? null
      : significant(run.predicted) + (run.logit_change === null ? "" : `, measured ${significant(run.logit_change)}`)],
    ["Price of a bit, λ", run.price === null ? null : significant(run.price)],
    ["Options", run.options || null],
    ["Dense weights", run.source],
    ["Seed", String(run.seed)],
    ["Time of the run", seconds(run.seconds)],
    ["Versions", ["vqzoo", "torch", "timm"].filter((name) => run.versions[name]).map((name) => `${name} ${run.versions[name]}`).join(", ")],
  ];
  return make("dl", { className: "facts" },
    ...rows.filter((row) => row[1] !== null).map(([term, text]) => make("div", {}, make("dt", {}, term), make("dd", {}, text))));
}

function barPicture(run, layers, total, template, palette) {
  const possible = Object.entries(BAR_KINDS).filter(([, kind]) => layers.some((layer) => kind.of(layer) !== null));
  const kinds = choice("Bars show", possible.map(([key, kind]) => [key, kind.label]));
  const order = choice("in order of", [["model", "the model"], ["largest", "length"]]);
  const chart = make("div", { className: "chart bars", id: "bars", role: "img" });
  const box = make("div", { className: "barbox", tabIndex: 0, role: "region", "aria-label": "Bars of the layers" }, chart);
  const key = make("p", { className: "row note" });
  const methods = unique(layers.map((layer) => layer.method));
  const colors = new Map(methods.map((method, index) => [method, COLORS[index % COLORS.length]]));
  colors.set("everything else", OTHERS);
  key.append(...[...colors].map(([method, color]) => make("span", { className: "row" }, palette.mark("square", color), method)));
  chart.redraw = () => {
    const kind = BAR_KINDS[kinds.value];
    const bars = layers.filter((layer) => kind.of(layer) !== null).map((layer) => ({
      name: layer.name, value: kind.of(layer), method: layer.method, tip: () => layerTip(layer, total, run),
    }));
    if (order.value === "largest") bars.sort((a, b) => b.value - a.value);
    const rest = run.bytes - total;
    if (kinds.value === "bytes" && rest > 0) {
      bars.push({ name: "everything else", value: rest, method: "everything else", tip: () => restTip(run, rest) });
    }
    const largest = bars.reduce((most, bar) => (bar.value > most.value ? bar : most), bars[0]);
    chart.setAttribute("aria-label", `${kind.title} of ${counted(bars.length, "bar")}; most: ${largest.name} with ${significant(largest.value, 4)}`);
    return drawBars(chart, template, bars, { title: kind.title, colors });
  };
  for (const select of [kinds, order]) select.addEventListener("change", chart.redraw);
  return [make("div", { className: "row" }, kinds.parentElement, order.parentElement), key, box];
}

// Bars need the width that the section has once it is shown.
const drawPicture = (section) => section.querySelector("#bars").redraw();

function choice(label, entries) {
  const select = make("select", {}, ...entries.map(([value, text]) => make("option", { value }, text)));
  make("label", {}, label + " ", select);
  return select;
}

function layerTip(layer, total, run) {
  const share = `${fixed((100 * layer.bytes) / run.bytes, 1)}% of the file`;
  return make("div", {},
    make("p", {}, make("strong", {}, layer.name)),
    make("p", {}, `${layer.method}, ${layer.shape}: ${layer.bytes.toLocaleString("en")} bytes, ${share}`),
    make("p", {}, `${fixed(layer.bits, 2)} bits a weight, SQNR ${decibels(layer.sqnr)}`),
    make("code", {}, layer.options));
}

function restTip(run, rest) {
  return make("p", {}, `${rest.toLocaleString("en")} bytes, ${fixed((100 * rest) / run.bytes, 1)}% of the file: layers that stay dense, biases, norms, and the header`);
}

const decibels = (value) => (value === null ? "exact" : `${fixed(value, 2)} dB`);

function layerTable(layers, total) {
  const number = (title, of, text, hint) => ({ title, hint, number: true, value: of, text: (layer) => text(of(layer)) });
  const columns = [
    { title: "Layer", text: (layer) => layer.name },
    { title: "Kind", text: (layer) => layer.kind },
    { title: "Shape", text: (layer) => layer.shape, value: (layer) => layer.weights },
    { title: "Method", text: (layer) => layer.method },
    { title: "Bytes", number: true, value: (layer) => layer.bytes, text: (layer) => layer.bytes.toLocaleString("en"), cell: (layer) => shareCell(layer.bytes, total) },
    number("Bits a weight", (layer) => layer.bits, (value) => fixed(value, 2)),
    number("SQNR dB", (layer) => layer.sqnr, (value) => (value === null ? "exact" : fixed(value, 2)), "of the decoded weight"),
    number("Rows' SQNR dB", (layer) => layer.row_sqnr, (value) => (value === null ? "exact" : fixed(value, 2)), "with equal weight for each row"),
  ];
  if (layers.some((layer) => layer.loss !== null)) {
    columns.push(number("Predicted loss", (layer) => layer.loss, (value) => significant(value), "squared change of the logits, halved"));
  }
  if (layers.some((layer) => layer.notes.length)) columns.push({ title: "Notes", text: (layer) => layer.notes.join("; ") });
  // Options that are the same everywhere would fill a column with nothing new.
  const options = unique(layers.map((layer) => layer.options));
  if (options.length > 1) {
    columns.splice(4, 0, { title: "Options", words: true, text: (layer) => layer.options, cell: (layer) => make("code", {}, layer.options) });
  }
  const every = options.length === 1 && options[0] ? `; all with ${options[0]}` : "";
  const table = make("table", { id: "layers" });
  sortableTable(table, `${counted(layers.length, "compressed layer")}, in the order of the model${every}`, columns).show(layers);
  return make("div", { className: "scroll tall", tabIndex: 0, role: "region", "aria-label": "Table of layers" }, table);
}

function shareCell(bytes, total) {
  const bar = make("span", { className: "share", "aria-hidden": "true" });
  bar.style.width = `${(4 * bytes) / total}em`;
  const cell = document.createDocumentFragment();
  cell.append(bar, bytes.toLocaleString("en"));
  return cell;
}

function leftDense(run) {
  const groups = Object.entries(run.skipped);
  if (!groups.length) return [];
  return [
    make("h3", {}, "Left dense"),
    make("ul", {}, ...groups.map(([reason, names]) => {
      const shown = names.slice(0, 12).join(", ");
      const more = names.length > 12 ? ` and ${names.length - 12} more` : "";
      return make("li", {}, `${reason}: `, make("code", {}, shown), more);
    })),
  ];
}

function gallery(examples) {
  if (examples === null) {
    const command = make("code", {}, "vqzoo report FOLDER --examples 12");
    return [make("p", { className: "note" }, "Nobody looked for them: ", command, " runs both networks and shows what changed.")];
  }
  if (typeof examples === "string") return [make("p", { className: "note" }, `There are none to show: ${examples}`)];
  const { lost, gained, changed, images } = examples;
  const words = `Of ${counted(images, "image")} of ${examples.data}, ${counted(lost + gained + changed, "answer")} changed: ` +
    `${lost} right before and wrong after, ${gained} wrong before and right after, ${changed} others. ` +
    (examples.shown.length ? "Here are those on which the dense network was surest, as the networks see them." : "");
  return [
    make("p", { className: "note" }, words),
    make("ul", { className: "gallery" }, ...examples.shown.map(exampleItem)),
  ];
}

function exampleItem(example) {
  const kind = KINDS[example.kind] ?? KINDS.changed;
  const truth = example.label === null ? "" : `, in truth ${example.label}`;
  const image = make("img", { alt: `Image${truth}: ${example.before} became ${example.after}` });
  // Only pictures that the page holds: the records' writers cannot make it load anything.
  if (example.picture.startsWith("data:image/png;base64,")) image.src = example.picture;
  const item = make("li", {}, image,
    make("b", {}, `${example.before} → ${example.after}`),
    make("span", { className: kind.style }, kind.words), make("br"),
    `${fixed(100 * example.p_before, 0)}% → ${fixed(100 * example.p_after, 0)}% sure`);
  if (example.label !== null && example.kind === "changed") item.append(make("br"), `in truth ${example.label}`);
  return item;
}
