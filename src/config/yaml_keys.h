#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cachalot {

// "12:7" (line and column); empty where the parser knows none.
std::string yaml_place(const YAML::Mark& mark);

// Reads the keys of one mapping of a YAML file into typed fields, each checked for type and range; a key that is absent
// leaves its field as it is. Reading goes on after a fault. finish() reports the first one, with file, line, column and
// key; a key that nothing asked for is one, too.
class YamlKeys {
 public:
  // `prefix` stands before every key in errors ("router.").
  YamlKeys(YAML::Node node, std::string path, std::string prefix = {});

  void read(const std::string& key, std::string& field);
  void read(const std::string& key, bool& field);
  void read(const std::string& key, int& field, int min, int max);
  void read(const std::string& key, uint16_t& field);  // a port
  void read(const std::string& key, double& field, double min, double max);
  void read(const std::string& key, std::vector<std::string>& field);            // one, or a list
  void read(const std::string& key, std::map<std::string, std::string>& field);  // added to what it holds

  // The value for the caller to read; not defined if absent.
  YAML::Node find(const std::string& key);
  YamlKeys nested(const std::string& key);  // the mapping of a key; empty if absent
  // All keys in their order, for a mapping whose keys the caller knows.
  std::vector<std::string> keys() const;

  // Where the key's value stands, "12:7" (line and column); empty if it is absent.
  std::string place(const std::string& key);

  // Notes a fault: "cluster.yaml:4:10: devices is 'eight'; it must be a whole number from 1 to 1024".
  void fault(const std::string& key, std::string_view wanted);
  void fault_at(const YAML::Node& node, std::string message);
  void add(const Status& status);  // of a nested mapping
  Status finish();

 private:
  std::string where() const;
  // The scalar's text; null, with a fault, if it is none.
  const std::string* scalar(const std::string& key, std::string_view wanted);

  YAML::Node node_;
  std::string path_, prefix_;
  std::vector<std::string> asked_;
  Status first_fault_;
};

}  // namespace cachalot
