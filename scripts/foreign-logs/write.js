// hdr-histogram-js: a log with tags. native-hdr-histogram (HdrHistogram_c): it has no log of its own, so its payloads stand
// in lines as hdr_log_write prints them, with the end in the second column. As JSON what the libraries say they hold.
const fs = require("fs");
const path = require("path");
const js = require("hdr-histogram-js");
const Native = require("native-hdr-histogram");

const folder = process.argv[2];
const BASE_MS = 1700000000123;

function values(seed) {
  let state = BigInt(seed);
  return Array.from({ length: 1000 }, () => {
    state = (state * 1103515245n + 12345n) % 2147483648n;
    return Number(20000n + (state % 1000n) * (state % 7000n));
  });
}

function build() {
  return js.build({ bitBucketSize: 64, lowestDiscernibleValue: 1, highestTrackableValue: 3600000000000, numberOfSignificantValueDigits: 3 });
}

function save(name, starts_ms, tags) {
  fs.writeFileSync(path.join(folder, name), JSON.stringify({ starts_ms, tags }, null, 2) + "\n");
}

function ofJs() {
  let text = "";
  const writer = new js.HistogramLogWriter((piece) => { text += piece; });
  writer.outputLogFormatVersion();
  writer.outputStartTime(BASE_MS);
  writer.outputLegend();
  for (let second = 0; second < 3; second++) {
    for (const tag of ["", "write"]) {
      const histogram = build();
      values(51 + second + (tag ? 10 : 0)).forEach((value) => histogram.recordValue(value));
      if (tag) histogram.tag = tag;
      writer.outputIntervalHistogram(histogram, second + 0.25, second + 1.25);
    }
  }
  fs.writeFileSync(path.join(folder, "js.hlog"), text);
  const reader = new js.HistogramLogReader(text, 64);
  const sums = {};
  const starts = [];
  for (let next; (next = reader.nextIntervalHistogram()) != null;) {
    const tag = next.tag && next.tag !== "NO TAG" ? next.tag : "";
    sums[tag] = sums[tag] || build();
    sums[tag].add(next);
    starts.push(Math.round(next.startTimeStampMsec));
  }
  const tags = {};
  for (const [tag, sum] of Object.entries(sums)) {
    const at = (percent) => Number(sum.getValueAtPercentile(percent));
    tags[tag] = { count: Number(sum.totalCount), p50: at(50), p99: at(99), "p99.9": at(99.9), max: Number(sum.maxValue) };
  }
  save("js.json", starts, tags);
}

function ofC() {
  let text = "#[StartTime: 1700000000.123 (seconds since epoch), Tue Nov 14 22:13:20 2023]\n";
  const whole = new Native(1, 3600000000000, 3);
  const starts = [];
  for (let second = 0; second < 3; second++) {
    const one = new Native(1, 3600000000000, 3);
    values(71 + second).forEach((value) => { one.record(value); whole.record(value); });
    text += `${second}.000,${second + 1}.000,${one.max()}.0,${one.encode().toString()}\n`;
    starts.push(BASE_MS + 1000 * second);
  }
  fs.writeFileSync(path.join(folder, "c.hlog"), text);
  const at = (percent) => whole.percentile(percent);
  save("c.json", starts, { "": { count: 3000, p50: at(50), p99: at(99), "p99.9": at(99.9), max: whole.max() } });
}

ofJs();
ofC();
