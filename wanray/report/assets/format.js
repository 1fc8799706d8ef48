// Numbers as texts with their units.
const rounded = (value) => {
  if (value === 0) return "0";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
};

const seconds = (value) => {
  if (value === null || value === undefined) return "-";
  if (value < 0.0995) return `${rounded(value * 1000)} ms`;
  if (value < 90) return `${rounded(value)} s`;
  const minutes = Math.round(value / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${rounded(hours / 24)} days`;
};

const bytes = (value) => {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let index = 0;
  for (; value >= 1000 && index < units.length - 1; index += 1) value /= 1000;
  return `${rounded(value)} ${units[index]}`;
};

const percent = (share) => `${rounded(100 * share)} %`;
const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

const moment = (value) => {
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? "-" : date.toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC").replace("Z", " UTC");
};

// Values of a request, such as {high: 5, low: 3}.
const valueText = (value) => {
  if (Array.isArray(value)) return value.map(valueText).join(", ");
  if (value && typeof value === "object") return Object.entries(value).map(([name, item]) => `${name} ${valueText(item)}`).join(", ");
  return String(value);
};
