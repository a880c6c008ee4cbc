// Tables that sort by a click on a heading.
//
// A column has a title, `text` of a row, and optionally `value` to sort by (a number or a string;
// null comes last), `number` for right alignment, `words` for a least width, and `cell` for more than
// text.

function compareValues(a, b, sign) {
  const missing = (value) => value === null || value === undefined;
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortableTable(table, caption, columns, options = {}) {
  const state = { rows: [], column: options.column ?? null, sign: options.sign ?? 1 };
  const headings = columns.map((column, index) => {
    const button = make("button", { type: "button", title: column.hint ?? "" }, column.title);
    const heading = make("th", { scope: "col", className: column.number ? "number" : "" }, button);
    button.addEventListener("click", () => {
      state.sign = state.column === index ? -state.sign : 1;
      state.column = index;
      draw();
    });
    return heading;
  });
  const body = make("tbody");
  table.replaceChildren(make("caption", {}, make("span", {}, caption)), make("thead", {}, make("tr", {}, ...headings)), body);

  const valueOf = (column, row) => (column.value ? column.value(row) : column.text(row));

  function sorted() {
    const column = columns[state.column];
    if (!column) return state.rows;
    const keyed = state.rows.map((row) => [valueOf(column, row), row]);
    return keyed.sort((a, b) => compareValues(a[0], b[0], state.sign)).map((pair) => pair[1]);
  }

  function draw() {
    headings.forEach((heading, index) => {
      const words = state.sign > 0 ? "ascending" : "descending";
      heading.setAttribute("aria-sort", index === state.column ? words : "none");
    });
    body.replaceChildren(...sorted().slice(0, options.most?.() ?? Infinity).map(drawRow));
    options.drawn?.();
  }

  function drawRow(row) {
    const cells = columns.map((column, index) => {
      const content = column.cell ? column.cell(row) : column.text(row);
      const heads = index === 0;
      return make(heads ? "th" : "td", { className: column.number ? "number" : column.words ? "words" : "", ...(heads ? { scope: "row" } : {}) }, content);
    });
    const element = make("tr", {}, ...cells);
    options.row?.(element, row);
    return element;
  }

  return {
    show(rows) {
      state.rows = rows;
      draw();
    },
    draw,
  };
}
