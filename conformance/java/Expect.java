import java.util.Arrays;
import java.util.Objects;
import java.util.concurrent.Callable;

/** Checks of a program. Java's own assertions are off by default. */
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

    /** Checks that the call fails with an exception of this class, and returns the exception. */
    static <E extends Throwable> E failure(Class<E> kind, Callable<?> call) {
        try {
            call.call();
        } catch (Throwable problem) {
            if (kind.isInstance(problem)) {
                return kind.cast(problem);
            }
            throw new AssertionError("this exception is not a " + kind, problem);
        }
        throw new AssertionError("no " + kind);
    }
}
