// hudl/fargo: registers, sends heartbeats, and prints what it sees of the application "web" after every fetch, one JSON line each.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hudl/fargo"
	"github.com/op/go-logging"
)

func main() {
	port, id, format := os.Args[1], os.Args[2], os.Args[3]
	logging.SetLevel(logging.ERROR, "fargo")
	connection := fargo.NewConn("http://127.0.0.1:" + port + "/eureka")
	connection.UseJson = format == "json"
	instance := &fargo.Instance{
		InstanceId:     id,
		HostName:       "host-" + id,
		App:            "WEB",
		IPAddr:         "127.0.0.1",
		VipAddress:     "web",
		Port:           9002,
		PortEnabled:    true,
		Status:         fargo.UP,
		DataCenterInfo: fargo.DataCenterInfo{Name: fargo.MyOwn},
		UniqueID:       func(fargo.Instance) string { return id },
	}
	must(connection.RegisterInstance(instance))
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	for {
		select {
		case <-end:
			must(connection.DeregisterInstance(instance))
			return
		case <-time.After(100 * time.Millisecond):
			must(connection.HeartBeatInstance(instance))
			seen, err := connection.GetApp("WEB")
			must(err)
			found := map[string]string{}
			for _, each := range seen.Instances {
				found[each.InstanceId] = string(each.Status)
			}
			line, _ := json.Marshal(map[string]any{"web": found})
			fmt.Println(string(line))
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
