import com.rabbitmq.client.CancelCallback;
import com.rabbitmq.client.DeliverCallback;
import com.rabbitmq.client.Delivery;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** A consumer that stores its deliveries. */
final class Deliveries implements DeliverCallback, CancelCallback {
    private final BlockingQueue<Delivery> arrived = new LinkedBlockingQueue<>();
    private final BlockingQueue<String> cancelled = new LinkedBlockingQueue<>();

    @Override
    public void handle(String consumerTag, Delivery delivery) {
        arrived.add(delivery);
    }

    @Override
    public void handle(String consumerTag) {
        cancelled.add(consumerTag);
    }

    /** Waits for the next delivery. If none comes, the runner ends the program. */
    Delivery next() throws InterruptedException {
        return arrived.take();
    }

    List<Delivery> next(int count) throws InterruptedException {
        List<Delivery> deliveries = new ArrayList<>();
        while (deliveries.size() < count) {
            deliveries.add(next());
        }
        return deliveries;
    }

    int waiting() {
        return arrived.size();
    }

    /** Waits until the server cancels a consumer, and returns its tag. */
    String cancelled() throws InterruptedException {
        return cancelled.take();
    }

    static String body(Delivery delivery) {
        return new String(delivery.getBody(), StandardCharsets.UTF_8);
    }

    static List<String> bodies(List<Delivery> deliveries) {
        return deliveries.stream().map(Deliveries::body).toList();
    }
}
