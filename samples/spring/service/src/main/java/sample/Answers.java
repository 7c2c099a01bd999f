package sample;

import java.io.IOException;
import java.net.InetAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.Map;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.core.env.Environment;
import org.springframework.http.HttpStatus;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** The endpoints of samples/hello: a greeting, a slow response, and how often an order was executed. */
@RestController
public class Answers {
    private final String version;
    private final String instance;
    private final Path ledger;
    private final String profile;

    public Answers(
            @Value("${APP_VERSION:1}") String version,
            @Value("${SLUICE_INSTANCE:}") String instance,
            @Value("${LEDGER:/data/ledger}") Path ledger,
            Environment environment) throws IOException {
        this.version = version;
        this.instance = instance.isEmpty() ? InetAddress.getLocalHost().getHostName() : instance;
        this.ledger = ledger;
        this.profile = String.join(",", environment.getActiveProfiles());
    }

    @GetMapping("/")
    public ResponseEntity<String> hello() {
        return answer(HttpStatus.OK, "Hello from " + instance + ", version " + version + ", profile " + profile + ".\n");
    }

    @GetMapping("/profile")
    public ResponseEntity<String> profile() {
        return answer(HttpStatus.OK, "Current active profile: " + profile);
    }

    @GetMapping("/slow")
    public ResponseEntity<String> slow(@RequestParam(defaultValue = "2") double seconds) throws InterruptedException {
        Thread.sleep((long) (1000 * Math.max(0, Math.min(seconds, 3600))));
        return answer(HttpStatus.OK, "That took " + seconds + " s.\n");
    }

    /** Appends the order's id to the ledger that all instances share: one line for each execution. */
    @PostMapping("/orders/{id}")
    public ResponseEntity<Map<String, String>> order(@PathVariable String id) throws IOException {
        Files.writeString(ledger, id + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        return answer(HttpStatus.CREATED, Map.of("id", id, "instance", instance));
    }

    @GetMapping("/ledger")
    public ResponseEntity<List<String>> ledger() throws IOException {
        return answer(HttpStatus.OK, Files.exists(ledger) ? Files.readAllLines(ledger) : List.of());
    }

    private <T> ResponseEntity<T> answer(HttpStatus status, T body) {
        return ResponseEntity.status(status).header("X-Version", version).header("X-Instance", instance).body(body);
    }
}
