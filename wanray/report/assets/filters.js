// Which clips are shown, and in which order. What was chosen stands in the address, so that a link shares it.
const DEFAULTS = { tab: "clips", q: "", status: "", tag: "", size: "", sort: "newest", seeds: "", page: "1", clip: "" };
const state = { ...DEFAULTS };

const readHash = () => {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(DEFAULTS)) state[name] = given.get(name) ?? DEFAULTS[name];
};

const writeHash = () => {
  const changed = Object.entries(state).filter(([name, value]) => String(value) !== DEFAULTS[name]);
  const hash = new URLSearchParams(changed).toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
};

const sizeOf = (clip) => { const { width, height } = settingsOf(clip); return width ? `${width}x${height}` : ""; };
const tagsOf = (clip) => Object.entries(clip.tags || {}).map(([name, value]) => `${name}=${value}`);

const workOf = (clip) => Object.values(clip.timings_s || {}).reduce((sum, value) => sum + value, 0);
const SORTS = {
  newest: ["newest first", (a, b) => (a.created_at < b.created_at ? 1 : -1)],
  oldest: ["oldest first", (a, b) => (a.created_at < b.created_at ? -1 : 1)],
  slowest: ["most work first", (a, b) => workOf(b) - workOf(a)],
  attempts: ["most attempts first", (a, b) => b.attempts - a.attempts],
  largest: ["largest file first", (a, b) => (b.bytes || 0) - (a.bytes || 0)],
  prompt: ["by prompt", (a, b) => a.prompt.localeCompare(b.prompt) || Number(a.seed) - Number(b.seed)],
};

// Clips that differ in nothing but their seed.
const familyOf = (clip) => `${clip.settings}\n${JSON.stringify(clip.inputs || {})}\n${clip.prompt}`;
const families = new Map();
for (const clip of data.clips) {
  if (clip.status !== "committed") continue;
  const family = familyOf(clip);
  if (!families.has(family)) families.set(family, []);
  families.get(family).push(clip);
}
for (const family of families.values()) family.sort((a, b) => Number(a.seed) - Number(b.seed));
const siblingsOf = (clip) => families.get(familyOf(clip)) || [];

const searched = new Map(data.clips.map((clip) => [clip,
  [clip.prompt, clip.extended?.prompt, clip.key, ...clip.ids || [], clip.message].filter(Boolean).join("\n").toLowerCase()]));

const chosenClips = () => {
  const needles = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const found = data.clips.filter((clip) =>
    (!state.status || clip.status === state.status)
    && (!state.size || sizeOf(clip) === state.size)
    && (!state.tag || tagsOf(clip).includes(state.tag))
    && (!state.seeds || siblingsOf(clip).length > 1)
    && needles.every((needle) => searched.get(clip).includes(needle)));
  const order = SORTS[state.sort] || SORTS.newest;
  return found.sort(order[1]);
};

// The values that there are, the most frequent first, with how often.
const countedValues = (valuesOf, most) => {
  const numbers = new Map();
  for (const clip of data.clips) for (const value of valuesOf(clip)) numbers.set(value, (numbers.get(value) || 0) + 1);
  return [...numbers].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, most);
};
