package sample;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.core.env.Environment;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** What a test of requests asks for: who answers, slowly if wanted, and how often an id has been run here. */
@RestController
public class Answers {
    private final String version;
    private final String profile;
    private final Map<String, Integer> runs = new ConcurrentHashMap<>();

    public Answers(@Value("${APP_VERSION:1}") String version, Environment environment) {
        this.version = version;
        this.profile = String.join(",", environment.getActiveProfiles());
    }

    @GetMapping("/profile")
    public String profile() {
        return "Current active profile: " + profile;
    }

    @RequestMapping("/hello")
    public ResponseEntity<String> hello(@RequestParam(defaultValue = "0") long ms) throws InterruptedException {
        Thread.sleep(Math.min(ms, 60_000));
        return answer("hello");
    }

    @PostMapping("/run")
    public ResponseEntity<String> run(@RequestParam String id, @RequestParam(defaultValue = "0") long ms)
            throws InterruptedException {
        int times = runs.merge(id, 1, Integer::sum);
        Thread.sleep(Math.min(ms, 60_000));
        return answer("ran " + times);
    }

    private ResponseEntity<String> answer(String text) {
        return ResponseEntity.ok().header("X-Version", version).body(text + " from version " + version + "\n");
    }
}
