// Throughput and latency as SVG. Colours come from the style sheet.
const TIME_STEPS_S = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];

const timeTicks = (length_s, num) => {
  const step = TIME_STEPS_S.find((item) => length_s / item <= num) || 604800;
  return Array.from({ length: Math.floor(length_s / step) + 1 }, (_, index) => index * step);
};

const timeUnit = (length_s) => (length_s <= 120 ? [1, "s"] : length_s <= 7200 ? [60, "min"] : [3600, "h"]);

const niceTicks = (top, num = 4) => {
  const rough = top / num || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((item) => item >= rough);
  return Array.from({ length: Math.ceil(top / step - 1e-9) + 1 }, (_, index) => index * step);
};

const MAX_BARS = 120;

// Bars no narrower than can be told apart; the last stretch may be shorter than the others.
const throughputBars = () => {
  const { bin_s: width_s, clips } = data.throughput;
  const step = Math.max(Math.ceil(clips.length / MAX_BARS), Math.min(Math.ceil(clips.length / 24), Math.ceil(10 / width_s)));
  const bars = [];
  for (let first = 0; first < clips.length; first += step) {
    bars.push(clips.slice(first, first + step).reduce((sum, number) => sum + number, 0) * 60 / (step * width_s));
  }
  return { bars, width_s: step * width_s };
};

const throughputPlot = (width) => {
  const height = 220, left = 56, bottom = 40, top = 12, right = 12;
  const { bars, width_s } = throughputBars();
  const length_s = Math.max(data.timeline.seconds, bars.length * width_s) || 1;
  const ticks = niceTicks(Math.max(...bars, 0.001));
  const highest = ticks[ticks.length - 1];
  const x = (at_s) => left + (at_s / length_s) * (width - left - right);
  const y = (value) => height - bottom - (value / highest) * (height - bottom - top);
  const [unit_s, unit] = timeUnit(length_s);
  const label = `Clips per minute over time, at most ${rounded(Math.max(...bars, 0))}`;
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
    ticks.map((value) => [
      svg("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, rounded(value)),
    ]),
    bars.map((value, index) => svg("rect", { class: "bar", x: x(index * width_s), width: Math.max(1, x(width_s) - left - 1), y: y(value), height: Math.max(0, y(0) - y(value)) },
      svg("title", {}, `${rounded(value)} clips per minute, ${rounded(index * width_s / unit_s)} to ${rounded((index + 1) * width_s / unit_s)} ${unit}`))),
    timeTicks(length_s, Math.max(2, Math.floor(width / 90))).map((at_s) => svg("text", { class: "tick", x: x(at_s), y: height - bottom + 16, "text-anchor": "middle" }, rounded(at_s / unit_s))),
    svg("text", { class: "axis", x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, `time since the start (${unit})`),
    svg("text", { class: "axis", x: 0, y: 0, transform: `translate(12 ${(height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "clips per minute"));
};

const HISTOGRAM_WIDTH = 260, HISTOGRAM_HEIGHT = 30, BUCKET = 2 ** (1 / 8);

const histogram = (stage, low_s, high_s) => {
  const x = (at_s) => (Math.log(at_s / low_s) / Math.log(high_s / low_s)) * HISTOGRAM_WIDTH;
  const most = Math.max(...stage.buckets.map(([, number]) => number));
  const bars = stage.buckets.map(([at_s, number]) => {
    const height = Math.max(1, (number / most) * HISTOGRAM_HEIGHT);
    return svg("rect", { class: "bar", x: x(at_s), width: Math.max(1.5, x(at_s * BUCKET) - x(at_s) - 0.5), y: HISTOGRAM_HEIGHT - height, height });
  });
  const label = `Distribution of ${stage.stage}, from ${seconds(stage.buckets[0][0])} to ${seconds(stage.max_s)}`;
  return svg("svg", { width: HISTOGRAM_WIDTH, height: HISTOGRAM_HEIGHT, role: "img", "aria-label": label }, bars);
};

const latencyAxis = (low_s, high_s) => {
  const x = (at_s) => (Math.log(at_s / low_s) / Math.log(high_s / low_s)) * HISTOGRAM_WIDTH;
  const powers = Array.from({ length: 12 }, (_, index) => 10 ** (index - 4)).filter((at_s) => at_s >= low_s / 10 && at_s <= high_s);
  const fine = powers.length < 4 ? powers.flatMap((at_s) => [at_s, 2 * at_s, 5 * at_s]) : powers;
  const ticks = fine.filter((at_s) => at_s >= low_s && at_s <= high_s);
  const anchor = (at_s) => (x(at_s) < 20 ? "start" : x(at_s) > HISTOGRAM_WIDTH - 20 ? "end" : "middle");
  return svg("svg", { width: HISTOGRAM_WIDTH, height: 16, "aria-hidden": "true" },
    ticks.map((at_s) => svg("text", { class: "tick", x: x(at_s), y: 12, "text-anchor": anchor(at_s) }, seconds(at_s))));
};

const latencyTable = () => {
  const stages = data.latencies;
  const low_s = Math.min(...stages.map((stage) => stage.buckets[0][0]));
  const high_s = Math.max(...stages.map((stage) => stage.max_s * BUCKET), low_s * 2);
  const name = (stage) => (stage.stage === "whole" ? "whole, with waiting" : stage.stage);
  return table(["stage", "clips", "half below", "90 % below", "99 % below", "longest", latencyAxis(low_s, high_s)],
    stages.map((stage) => [name(stage), stage.count.toLocaleString("en"), seconds(stage.p50_s), seconds(stage.p90_s), seconds(stage.p99_s), seconds(stage.max_s), histogram(stage, low_s, high_s)]),
    { label: "Latencies" });
};
