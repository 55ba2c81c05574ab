#include "config/rope_keys.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "base/text.h"

namespace cachalot {
namespace {

namespace json = boost::json;

class RopeReader {
 public:
  RopeReader(ModelKeys& keys, ModelConfig& config) : keys_(keys), config_(config) {}

  // Appends to `unknown` the names of keys that nothing here knows.
  Status read(std::vector<std::string>& unknown) {
    keys_.optional("rope_theta", config_.rope_theta);
    says_theta_ = keys_.find("rope_theta");
    std::string read_from;
    for (const std::string name : {"rope_scaling", "rope_parameters"}) {
      const json::object* object = keys_.object(name);
      if (object && object->empty())
        config_.notes.push_back(fmt::format("{} is empty, which is taken as absent", name));
      if (!object || object->empty()) continue;
      if (read_from.empty()) {
        RETURN_IF_ERROR(read_object(name, *object, unknown));
        read_from = name;
      } else if (!says_the_same(name, *object)) {
        config_.notes.push_back(fmt::format("{} goes before {}, which says otherwise", read_from, name));
      }
    }
    return keys_.status();
  }

 private:
  Status read_object(const std::string& name, const json::object& object, std::vector<std::string>& unknown) {
    ASSIGN_OR_RETURN(const std::string inner, nested_name(name, object));
    ModelKeys rope = keys_.nested(name, object, "rope_scaling");
    if (inner.empty()) return read_flat(name, rope, unknown);
    ModelKeys of_layers = rope.nested(inner, object.at(inner).get_object(), "rope_scaling");
    return read_flat(fmt::format("{}.{}", name, inner), of_layers, unknown);
  }

  // Takes theta from there if nothing else says it.
  bool says_the_same(const std::string& name, const json::object& object) {
    ModelKeys keys = keys_;
    ModelConfig config;
    config.rope_theta = config_.rope_theta;
    std::vector<std::string> unknown;
    RopeReader other(keys, config);
    const bool is_right = other.read_object(name, object, unknown) && keys.status();
    if (!says_theta_ && other.says_theta_) config_.rope_theta = config.rope_theta;
    return is_right && config.rope_theta == config_.rope_theta && config.yarn == config_.yarn;
  }

  // Where the object holds one for each kind of layer, the name of the only kind, or of one that stands for all.
  Result<std::string> nested_name(std::string_view name, const json::object& object) {
    std::string first;
    for (const auto& [key, value] : object) {
      if (value.is_null()) continue;
      if (value.is_object()) {
        if (first.empty()) first = key;
        if (value == object.at(first)) continue;
        return make_parameter_error(fmt::format("{}.{}", name, std::string_view(key)),
                                    "{}: {} holds different rotations, {} for {} and {} for {}, which is not "
                                    "supported; all layers must have one",
                                    keys_.path(), name, shown(object.at(first)), name_text(first), shown(value),
                                    name_text(key));
      }
    }
    if (first.empty()) return first;
    for (const auto& [key, value] : object)
      if (!value.is_object() && !value.is_null())
        return make_parameter_error(fmt::format("{}.{}", name, first),
                                    "{}: {}.{} is an object beside {}.{}; it must hold either the rotation or one for "
                                    "each kind of layer",
                                    keys_.path(), name, name_text(first), name, name_text(key));
    return first;
  }

  Status read_flat(const std::string& name, ModelKeys& rope, std::vector<std::string>& unknown) {
    rope.check(unknown);
    if (rope.find("rope_theta")) {
      const double outside = config_.rope_theta;
      rope.optional("rope_theta", config_.rope_theta);
      if (says_theta_ && outside != config_.rope_theta)
        config_.notes.push_back(
            fmt::format("{}.rope_theta ({}) goes before rope_theta, which is {}", name, config_.rope_theta, outside));
      says_theta_ = true;
    }
    ASSIGN_OR_RETURN(const std::string type, read_type(name, rope));
    if (type == "yarn") read_yarn(name, rope);
    return rope.status();
  }

  Result<std::string> read_type(const std::string& name, ModelKeys& rope) {
    std::string old_name, new_name;
    rope.optional("type", old_name);
    rope.optional("rope_type", new_name);
    if (!old_name.empty() && !new_name.empty() && old_name != new_name)
      rope.fault("type", fmt::format("is {}", cachalot::quoted(old_name)),
                 fmt::format("what rope_type says ({}), or absent", cachalot::quoted(new_name)));
    const std::string type = new_name.empty() ? old_name : new_name;
    if (type.empty() && rope.find("factor")) rope.fault("rope_type", "is absent beside factor", "yarn or default");
    if (!type.empty() && type != "default" && type != "yarn")
      rope.refuse(rope.object().contains("rope_type") ? "rope_type" : "type", in_double_quotes(type),
                  "yarn or default");
    if (type == "default" && rope.find("factor"))
      config_.notes.push_back(fmt::format("{}.factor plays no part, since the type is default", name));
    RETURN_IF_ERROR(rope.status());
    return type;
  }

  void read_yarn(const std::string& name, ModelKeys& rope) {
    YarnConfig& yarn = config_.yarn.emplace();
    if (!rope.find("factor")) rope.miss("factor");
    rope.optional("factor", yarn.factor);
    rope.optional("original_max_position_embeddings", yarn.original_max_position_embeddings);
    rope.optional("beta_fast", yarn.beta_fast);
    rope.optional("beta_slow", yarn.beta_slow);
    rope.optional("mscale", yarn.mscale);
    rope.optional("mscale_all_dim", yarn.mscale_all_dim);
    read_outer_original(name, rope, yarn.original_max_position_embeddings);
    // Equal ones, as Kimi K2 has them, cut the frequencies at one place.
    if (yarn.beta_fast < yarn.beta_slow)
      rope.fault("beta_fast", fmt::format("is {}", yarn.beta_fast),
                 fmt::format("at least beta_slow ({})", yarn.beta_slow));
  }

  // transformers lets some models say it outside.
  void read_outer_original(const std::string& name, ModelKeys& rope, int& original) {
    constexpr std::string_view kKey = "original_max_position_embeddings";
    int outer = 0;
    keys_.optional(kKey, outer);
    if (!rope.find(kKey)) {
      if (!keys_.find(kKey)) rope.miss(kKey);
      original = outer;
    } else if (keys_.find(kKey) && outer != original) {
      keys_.fault(kKey, fmt::format("is {}", outer), fmt::format("what {}.{} says ({})", name, kKey, original));
    }
  }

  ModelKeys& keys_;
  ModelConfig& config_;
  bool says_theta_ = false;
};

}  // namespace

Status read_rope(ModelKeys& keys, ModelConfig& config, std::vector<std::string>& unknown) {
  return RopeReader(keys, config).read(unknown);
}

}  // namespace cachalot
