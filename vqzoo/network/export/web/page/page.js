// Load the network once, then classify pictures without any connection.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { prepare } from "./picture.js";

const SHOWN = 5; // classes
const element = (id) => document.getElementById(id);

ort.env.wasm.wasmPaths = new URL("./runtime/", location.href).href;
ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send

async function fetched(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name} cannot be loaded (${answer.status})`);
  return answer;
}

async function load() {
  const network = await (await fetched("network.json")).json();
  const packed = await (await fetched("model.onnx.gz")).arrayBuffer();
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(plain).arrayBuffer());
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  // The first run takes longer than all others, and so is none of a picture.
  const blank = new Float32Array(network.channels * network.crop ** 2);
  await session.run({ images: imagesOf(blank, network) });
  return { network, session, bytes: packed.byteLength };
}

/** One image as the network takes it. */
function imagesOf(values, { channels, crop }) {
  return new ort.Tensor("float32", values, [1, channels, crop, crop]);
}

/** The logits of a picture, an array with a number for each class. */
async function logitsOf(file) {
  const { network, session } = await loaded;
  const images = imagesOf(await prepare(file, network), network);
  const { logits } = await session.run({ images });
  return Array.from(logits.data);
}

function likeliest(logits, labels) {
  const peak = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - peak));
  const sum = weights.reduce((a, b) => a + b, 0);
  const classes = weights.map((weight, place) => ({ label: labels[place], share: weight / sum }));
  return classes.sort((a, b) => b.share - a.share).slice(0, SHOWN);
}

function show(file, classes) {
  URL.revokeObjectURL(element("picture").src);
  element("picture").src = URL.createObjectURL(file);
  element("classes").replaceChildren(
    ...classes.map(({ label, share }) => {
      const percent = `${(100 * share).toFixed(1)}%`;
      const row = document.createElement("li");
      row.style.setProperty("--share", percent);
      for (const text of [label, percent]) {
        const part = document.createElement("span");
        part.textContent = text;
        row.append(part);
      }
      return row;
    }),
  );
  element("result").hidden = false;
}

function say(text, failed = false) {
  element("status").textContent = text;
  element("status").classList.toggle("failed", failed);
}

async function classify(file) {
  say("Classifying…");
  const { network } = await loaded;
  let logits;
  try {
    const start = performance.now();
    logits = await logitsOf(file);
    say(`Classified in ${Math.round(performance.now() - start)} ms, on this device alone.`);
  } catch (error) {
    say(`${file.name} is not a picture that this browser can read.`, true);
    throw error;
  }
  show(file, likeliest(logits, network.labels));
  return logits;
}

const loaded = load();
loaded.then(
  ({ network, bytes }) => {
    element("name").textContent = `Classify a picture with ${network.name}`;
    element("size").textContent = `The network takes ${(bytes / 1e6).toFixed(2)} MB.`;
    element("file").disabled = false;
    say("Ready. Pictures stay on this device.");
  },
  (error) => say(`The network cannot be loaded: ${error.message}`, true),
);

element("file").addEventListener("change", (event) => {
  if (event.target.files.length) classify(event.target.files[0]);
});
const drop = element("drop");
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
});

window.classify = classify; // for scripts that drive the page
