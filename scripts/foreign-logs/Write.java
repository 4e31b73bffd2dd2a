// Java's HdrHistogram: a log with tags (java.hlog), and one whose payloads are of the older form V1 (java-v1.hlog), which
// the library reads but no longer writes. Beside each, as JSON, what the library's own reader says that it holds.

import java.io.File;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.util.Base64;
import java.util.Map;
import java.util.TreeMap;
import java.util.zip.Deflater;
import org.HdrHistogram.DoubleHistogram;
import org.HdrHistogram.Histogram;
import org.HdrHistogram.HistogramLogReader;
import org.HdrHistogram.HistogramLogWriter;

public class Write {
    static final long BASE_MS = 1700000000123L;

    static Histogram filled(int seed) {
        Histogram histogram = new Histogram(1L, 3600000000000L, 3);
        long state = seed;
        for (int index = 0; index < 1000; index++) {
            state = (state * 1103515245L + 12345L) % 2147483648L;
            histogram.recordValue(20000L + state % 1000L * (state % 7000L));
        }
        return histogram;
    }

    // The head is that of V2; counts are words of 8 bytes, in the order of their values.
    static String v1(Histogram histogram) {
        int counts = 0;
        for (int index = 0; index < 100000; index++) {
            if (histogram.getMaxValue() < lowest(histogram, index)) {
                counts = index;
                break;
            }
        }
        ByteBuffer plain = ByteBuffer.allocate(40 + 8 * counts);
        plain.putInt(0x1c849301 | 0x80).putInt(8 * counts).putInt(0).putInt(3);
        plain.putLong(1L).putLong(3600000000000L).putDouble(1.0);
        for (int index = 0; index < counts; index++) {
            plain.putLong(histogram.getCountAtValue(lowest(histogram, index)));
        }
        Deflater deflater = new Deflater();
        deflater.setInput(plain.array());
        deflater.finish();
        byte[] room = new byte[plain.capacity() + 100];
        int length = deflater.deflate(room);
        ByteBuffer all = ByteBuffer.allocate(8 + length);
        all.putInt(0x1c849302 | 0x80).putInt(length).put(room, 0, length);
        return Base64.getEncoder().encodeToString(all.array());
    }

    // Of 3 digits: 2,048 steps, then 1,024 for each doubling.
    static long lowest(Histogram histogram, int index) {
        int bucket = Math.max(0, (index >> 10) - 1);
        return ((long) (index - (bucket << 10))) << bucket;
    }

    static void say(File log, File json) throws Exception {
        Map<String, Histogram> tags = new TreeMap<>();
        StringBuilder starts = new StringBuilder();
        HistogramLogReader reader = new HistogramLogReader(log);
        Histogram next;
        while ((next = (Histogram) reader.nextIntervalHistogram()) != null) {
            String tag = next.getTag() == null ? "" : next.getTag();
            tags.computeIfAbsent(tag, any -> new Histogram(1L, 3600000000000L, 3)).add(next);
            starts.append(starts.length() == 0 ? "" : ", ").append(next.getStartTimeStamp());
        }
        try (PrintStream out = new PrintStream(json)) {
            out.println("{\n  \"starts_ms\": [" + starts + "],\n  \"tags\": {");
            String before = "";
            for (Map.Entry<String, Histogram> entry : tags.entrySet()) {
                Histogram sum = entry.getValue();
                out.printf("%s    \"%s\": {\"count\": %d, \"p50\": %d, \"p99\": %d, \"p99.9\": %d, \"max\": %d}",
                    before, entry.getKey(), sum.getTotalCount(), sum.getValueAtPercentile(50), sum.getValueAtPercentile(99),
                    sum.getValueAtPercentile(99.9), sum.getMaxValue());
                before = ",\n";
            }
            out.println("\n  }\n}");
        }
    }

    public static void main(String[] arguments) throws Exception {
        File folder = new File(arguments[0]);
        File log = new File(folder, "java.hlog");
        HistogramLogWriter writer = new HistogramLogWriter(new PrintStream(new FileOutputStream(log)));
        writer.outputLogFormatVersion();
        writer.outputStartTime(BASE_MS);
        writer.setBaseTime(BASE_MS);
        writer.outputBaseTime(BASE_MS);
        writer.outputLegend();
        for (int second = 0; second < 3; second++) {
            for (String tag : new String[] {null, "read"}) {
                Histogram histogram = filled(1 + second + (tag == null ? 0 : 10));
                histogram.setTag(tag);
                histogram.setStartTimeStamp(BASE_MS + 1000 * second);
                histogram.setEndTimeStamp(BASE_MS + 1000 * (second + 1));
                writer.outputIntervalHistogram(histogram);
            }
        }
        writer.close();
        say(log, new File(folder, "java.json"));

        File old = new File(folder, "java-v1.hlog");
        try (PrintStream out = new PrintStream(old)) {
            out.println("#[Histogram log format version 1.1]");
            out.println("#[StartTime: 1441812279.474 (seconds since epoch), Wed Sep 09 08:24:39 PDT 2015]");
            out.println("\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"");
            for (int second = 0; second < 2; second++) {
                out.println(String.format("%d.127,1.007,2.769,", second) + v1(filled(20 + second)));
            }
        }
        say(old, new File(folder, "java-v1.json"));

        // A DoubleHistogram, which is to be called by its name.
        DoubleHistogram doubles = new DoubleHistogram(3);
        doubles.recordValue(0.5);
        ByteBuffer bytes = ByteBuffer.allocate(doubles.getNeededByteBufferCapacity());
        int length = doubles.encodeIntoCompressedByteBuffer(bytes);
        byte[] exact = new byte[length];
        System.arraycopy(bytes.array(), 0, exact, 0, length);
        try (PrintStream out = new PrintStream(new File(folder, "java-double.hlog"))) {
            out.println("0.127,1.007,0.500," + Base64.getEncoder().encodeToString(exact));
        }
    }
}
