#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <stop_token>

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "eval/interview.h"
#include "eval/score.h"
#include "http/client.h"
#include "openai/api_address.h"
#include "serve/server.h"

namespace cachalot {
namespace {

constexpr size_t kMostNamedReasons = 10;
// An answer comes as a whole, of a large model after a long thought.
constexpr std::chrono::hours kAnswerTimeout{2};

struct EvalFlags {
  ServeOptions server;  // of --model
  std::string url, api_key;
  std::string questions, json;
  std::optional<size_t> limit;
  std::optional<double> min_accuracy;
  InterviewOptions interview;
};

Result<std::vector<Question>> load_questions(const EvalFlags& flags) {
  ASSIGN_OR_RETURN(const std::string text, read_file(flags.questions, kMostTableBytes));
  ASSIGN_OR_RETURN(std::vector<Question> questions, parse_questions(text, flags.questions));
  if (flags.interview.bare && std::erase_if(questions, &Question::needs_chat) > 0 && questions.empty())
    return make_error(ErrorCode::kInvalidArgument, "{}: no question of it can be asked with --bare", flags.questions);
  return flags.limit ? spread_selection(questions, *flags.limit) : std::move(questions);
}

// Each reason once, with the first question that it met. Gives the number of failures.
int print_failures(const std::string& path, const std::vector<Question>& questions, const Answers& answers) {
  struct Reason {
    std::string message;
    int first_line, num_questions;
  };
  std::vector<Reason> reasons;
  int num_failed = 0;
  for (size_t idx = 0; idx < questions.size(); idx++) {
    if (answers[idx]) continue;
    num_failed++;
    const std::string& message = answers[idx].error().message;
    const auto known = std::ranges::find(reasons, message, &Reason::message);
    if (known == reasons.end()) {
      reasons.push_back({message, questions[idx].line, 1});
    } else {
      known->num_questions++;
    }
  }
  for (size_t idx = 0; idx < std::min(reasons.size(), kMostNamedReasons); idx++) {
    const auto& [message, line, num_questions] = reasons[idx];
    const std::string more = num_questions > 1 ? fmt::format(" (and {} more)", num_questions - 1) : "";
    fmt::print(stderr, "{}:{}{}: {}\n", path, line, more, message);
  }
  if (reasons.size() > kMostNamedReasons)
    fmt::print(stderr, "{}: and {} more reasons\n", path, reasons.size() - kMostNamedReasons);
  return num_failed;
}

Status conclude(const EvalFlags& flags, const EvalSubject& subject, const std::vector<Question>& questions,
                const Answers& answers) {
  const Score score = score_answers(questions, answers);
  fmt::print("{}", score_table(score));
  if (!flags.json.empty()) RETURN_IF_ERROR(write_file(flags.json, score_json(subject, questions, answers)));
  if (const int num_failed = print_failures(flags.questions, questions, answers))
    return make_error(ErrorCode::kUnavailable, "{} of {} questions could not be asked", num_failed, questions.size());
  if (flags.min_accuracy && score.mean_over_families() < *flags.min_accuracy)
    return make_error(ErrorCode::kUnavailable, "the mean over families is {:.4f}, below --min-accuracy {}",
                      score.mean_over_families(), *flags.min_accuracy);
  return {};
}

Status question_address(EvalFlags& flags, const openai::ApiAddress& address, const std::vector<Question>& questions,
                        const std::stop_token& stop) {
  const http::IoThreads threads(1);
  const http::Client client(threads, {.idle_timeout = kAnswerTimeout});
  ASSIGN_OR_RETURN(flags.interview.model, address.choose_model(client, flags.interview.model));
  Answers answers;
  {
    ProgressBar bar("asking " + flags.interview.model, "questions");
    answers = ask_all(
        client, address, questions, flags.interview, [&](size_t num_done) { bar.update(num_done, questions.size()); },
        stop);
  }
  return conclude(flags,
                  {.model = flags.interview.model,
                   .url = address.url(),
                   .questions_path = flags.questions,
                   .bare = flags.interview.bare},
                  questions, answers);
}

// The whole server in this process, all other ranks of the group as its children: replica 0 is asked.
Status question_model(EvalFlags& flags) {
  ServeOptions& server_options = flags.server;
  const bool started = server_options.parallel.rank_board_fd >= 0;
  if (!started) server_options.parallel.data_parallel_rank = 0;
  RETURN_IF_ERROR(check_parallel_options(server_options.parallel));
  server_options.starts = Starts::kGroup;
  server_options.stop = stop_token_of_signals();
  server_options.host = "127.0.0.1";
  server_options.port = 0;
  log::quieten();
  if (started) return run_started_rank(group_options(server_options));
  ASSIGN_OR_RETURN(server_options.command_line, own_command_line());
  ASSIGN_OR_RETURN(const std::vector<Question> questions, load_questions(flags));
  std::stop_source stop;
  ASSIGN_OR_RETURN(const auto server, RunningServer::start(server_options, [&](const Error& error) {
                     log::error("{}", error.message);
                     stop.request_stop();
                   }));
  const Status status = question_address(flags, {server->url(), {}}, questions, stop.get_token());
  server->stop(std::chrono::steady_clock::now() + std::chrono::seconds(10));
  return status;
}

// Flags of an engine that somebody else runs would be without effect. (Those of the layout may come from the
// environment.)
Status check_subject(const EvalFlags& flags, const std::vector<CLI::Option*>& engine_flags) {
  if (flags.url.empty() && flags.server.engine.model.empty())
    return make_parameter_error("--model", "eval: give --model DIR or --url URL");
  for (const CLI::Option* flag : engine_flags) {
    if (!flags.url.empty() && flag->count() > 0)
      return make_parameter_error(flag->get_name(), "eval: {} does not go with --url: that model runs elsewhere",
                                  flag->get_name());
  }
  return {};
}

Status run_eval(EvalFlags& flags) {
  if (!flags.server.engine.model.empty()) return question_model(flags);
  ASSIGN_OR_RETURN(const std::vector<Question> questions, load_questions(flags));
  return question_address(flags, {flags.url, flags.api_key}, questions, {});
}

}  // namespace

void add_eval_command(CLI::App& app) {
  auto flags = std::make_shared<EvalFlags>();
  InterviewOptions& interview = flags->interview;
  CLI::App* command = app.add_subcommand("eval", "Ask a file of questions; count the answers that are exact");
  command->add_option("--url", flags->url, "Address of an OpenAI-compatible server, instead of --model");
  const size_t num_before = command->get_options().size();
  add_engine_flags(*command, flags->server.engine);
  std::vector<CLI::Option*> engine_flags = command->get_options();
  engine_flags.erase(engine_flags.begin(), engine_flags.begin() + static_cast<ptrdiff_t>(num_before));
  add_parallel_flags(*command, flags->server.parallel);
  CLI::Option* model = command->get_option("--model")->required(false);
  command->add_option("--served-model-name", interview.model, "Model to ask for at --url; the server's first if absent")
      ->excludes(model);
  command->add_option("--api-key", flags->api_key, "Key of the API at --url")->envname("OPENAI_API_KEY");
  command
      ->add_option(
          "--questions", flags->questions,
          "JSONL file; in each line the strings `family`, `question` and `answer`, perhaps `messages` and `tools`")
      ->required();
  add_whole(*command, "--limit", flags->limit, {.least = 1}, "Ask so many, evenly over the file");
  add_whole(*command, "--concurrency", interview.concurrency, {.least = 1, .most = 1024}, "Requests at once");
  command->add_flag("--bare", interview.bare,
                    "Ask through /v1/completions, without the chat template: the question and a line break; those with "
                    "`messages` or `tools` are left out");
  add_whole(
      *command, "--max-tokens", interview.max_tokens, {.least = 1},
      fmt::format("Most tokens of an answer, thought included; absent: as many as fit (--bare: {})", kBareMaxTokens));
  command->add_option("--json", flags->json, "Write the scores, wrong answers and failures to this file");
  add_real(*command, "--min-accuracy", flags->min_accuracy, {0.0, 1.0},
           "End with status 1 if the mean over families is lower, e.g. 0.95");
  command->callback([flags, engine_flags] {
    finish_command(check_subject(*flags, engine_flags));
    finish_command(run_eval(*flags));
  });
}

}  // namespace cachalot
