import java.util.Arrays;
import java.util.Objects;
import java.util.concurrent.Callable;

/** What a program expects. Java's own assertions are off where nobody has switched them on. */
final class Expect {
    private Expect() {}

    static void that(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void equal(Object expected, Object found) {
        if (!Objects.deepEquals(expected, found)) {
            Object[] both = {expected, found};
            throw new AssertionError("expected and found: " + Arrays.deepToString(both));
        }
    }

    /** The call fails with this kind of problem, which is given back. */
    static <E extends Throwable> E failure(Class<E> kind, Callable<?> call) {
        try {
            call.call();
        } catch (Throwable problem) {
            if (kind.isInstance(problem)) {
                return kind.cast(problem);
            }
            throw new AssertionError("another problem than " + kind, problem);
        }
        throw new AssertionError("no " + kind);
    }
}
