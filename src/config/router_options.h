#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace cachalot {

// What `cachalot router` is told.
struct RouterOptions {
  std::vector<std::string> server_urls;  // of the replicas, in the order of their ranks
  std::string host = "0.0.0.0";
  uint16_t port = 8002;
  std::string model;                  // the name that the replicas serve; empty: whichever
  std::vector<std::string> api_keys;  // any of them opens; none: whatever a client brings is passed on
  std::string server_api_key;         // for the replicas, in place of the client's

  // Health. Silence means that a question has no answer for so long; `fall` questions that fail otherwise, or `rise`
  // good answers, change what is thought of a replica.
  std::chrono::milliseconds health_interval{250};
  std::chrono::milliseconds health_timeout{1000};  // as --failure-timeout-ms of the ranks
  int health_fall = 2, health_rise = 2;
  int eject_after_errors = 5;             // answers with a 5xx in a row
  std::chrono::seconds eject_time{5};     // doubled with each time in a row, up to a minute
  std::chrono::seconds slow_start{10};    // over which a replica that came back gets its full share again
  std::chrono::seconds stream_grace{10};  // for a stream that has begun, of a replica that is silent

  // Limits; 0: none.
  int max_tries = 3;  // replicas that a request is sent to, one after the other, until one of them answers
  int max_in_flight = 16384;
  int max_in_flight_per_replica = 2048;  // well below the connections that a server of ours takes
  int max_connections = 0;               // of clients; 0: as many as the limit of open files allows, up to 32,768
  size_t max_header_bytes = 32 << 10, max_body_bytes = 32 << 20;
  size_t max_body_bytes_in_flight = 1 << 30;  // that are held, of all requests
  std::chrono::milliseconds connect_timeout{2000};
  std::chrono::seconds answer_timeout{3600};  // until the first byte, and between two of them
  std::chrono::seconds header_timeout{15}, body_timeout{120}, write_timeout{60}, idle_timeout{75};  // of clients

  int prefix_entries = 1 << 16;  // remembered beginnings of prompts
  int io_threads = 1;
  int drain_seconds = 30;
};

}  // namespace cachalot
