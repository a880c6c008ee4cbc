"use strict";
// Numbers and elements. Text from records reaches the page as text nodes and attributes alone.

const NONE = "–";

function fixed(value, digits) {
  if (value === null || value === undefined) return NONE;
  const text = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return text.replace(/^-(0\.?0*)$/, "$1").replace("-", "−"); // -0.00 would look like a gain
}

function significant(value, digits = 3) {
  if (value === null || value === undefined) return NONE;
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(digits - 1);
  return value.toLocaleString("en", { maximumSignificantDigits: digits });
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return NONE;
  if (bytes >= 1e9) return fixed(bytes / 1e9, 2) + " GB";
  return bytes >= 1e5 ? fixed(bytes / 1e6, 2) + " MB" : fixed(bytes / 1e3, 1) + " kB";
}

const percent = (value) => (value === null || value === undefined ? NONE : fixed(value, 2) + "%");
const times = (value) => (value === null || value === undefined ? NONE : fixed(value, 1) + "×");
const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

// Points with their confidence interval, if there is one.
const loss = (points, ci95) => (points === null || ci95 === null ? fixed(points, 2) : `${fixed(points, 2)} ± ${fixed(ci95, 2)}`);
const lost = (run) => loss(run.lost, run.ci95);

function seconds(value) {
  if (value < 90) return fixed(value, 1) + " s";
  return value < 5400 ? fixed(value / 60, 1) + " min" : fixed(value / 3600, 1) + " h";
}

// An element with properties and children; strings become text nodes.
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "scope" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const byId = (id) => document.getElementById(id);
