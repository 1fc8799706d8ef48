// Makes elements. Texts of others go in as text only: nothing in this page sets markup.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  setAll(node, attributes);
  put(node, ...children);
  return node;
};

// Children may be nodes, texts, lists of them, or nothing.
const put = (node, ...children) =>
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));

const svg = (tag, attributes = {}, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAll(node, attributes);
  put(node, ...children);
  return node;
};

const setAll = (node, attributes) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
};

// Words of others keep their own direction.
const words = (text, attributes = {}, tag = "span") => el(tag, { dir: "auto", ...attributes }, String(text));

const heading = (level, text) => el(`h${level}`, {}, text);

const table = (heads, rows, attributes = {}) =>
  el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": attributes.label },
    el("table", {},
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, index) => (index ? el("td", {}, cell) : el("th", { scope: "row" }, cell))))))));

const innerWidthOf = (host) => {
  const style = getComputedStyle(host);
  return Math.max(240, host.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
};

// As one word of a POSIX shell.
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`);

// A command with a button that copies it; where the clipboard is closed to us, the text gets selected.
const command = (text) => {
  const code = el("code", { dir: "ltr" }, text);
  const button = el("button", { type: "button", class: "small" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return el("div", { class: "command" }, code, button);
};

const parameters = (pairs) =>
  el("dl", {}, pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .map(([name, value]) => [el("dt", {}, name), el("dd", {}, value instanceof Node ? value : words(value))]));
