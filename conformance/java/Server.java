import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.concurrent.TimeoutException;

/** The address of the server, and the request to kill it. conformance/README.md describes both. */
final class Server {
    /** The exit code of a program that cannot run here. */
    private static final int SKIPPED = 77;

    private final BufferedReader answers = new BufferedReader(new InputStreamReader(System.in));

    static ConnectionFactory factory() {
        String address = System.getenv("FERRYMQ_AT");
        if (address == null) {
            throw new IllegalStateException("set FERRYMQ_AT=HOST:PORT");
        }
        int colon = address.lastIndexOf(':');
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost(address.substring(0, colon));
        factory.setPort(Integer.parseInt(address.substring(colon + 1)));
        return factory;
    }

    static Connection connect() throws IOException, TimeoutException {
        return factory().newConnection();
    }

    /** Ends the program as skipped if the server must not be killed. */
    static void mustBeOursToKill() {
        if (System.getenv("FERRYMQ_MAY_KILL") == null) {
            System.out.println("skipped: this program kills its server, and the server at FERRYMQ_AT must not be killed");
            System.exit(SKIPPED);
        }
    }

    /** Asks the runner to kill and restart the server. Returns when the server is ready again. */
    void kill() throws IOException {
        System.out.println("kill the server");
        String answer = answers.readLine();
        Expect.equal("ready", answer);
    }
}
