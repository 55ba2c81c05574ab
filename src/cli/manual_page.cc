#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "base/text.h"
#include "cli/command_table.h"
#include "config/version.h"

namespace cachalot {
namespace {

constexpr size_t kLongestLine = 78;

// Letters of the page's language that stand for themselves.
std::string escaped_text(std::string_view text) {
  std::string page;
  for (const char letter : text) {
    if (letter == '\\')
      page += "\\e";
    else if (letter == '-' || letter == '\'' || letter == '`' || letter == '^' || letter == '~')
      page += fmt::format("\\{}", letter == '\''  ? "(aq"
                                  : letter == '`' ? "(ga"
                                  : letter == '^' ? "(ha"
                                  : letter == '~' ? "(ti"
                                                  : "-");
    else
      page += letter;
  }
  return page;
}

// A paragraph's words on lines that are short enough. A dot at a line's begin would be a request.
std::string paragraph(std::string_view text) {
  std::string page, line;
  const auto end_line = [&] {
    if (line.empty()) return;
    page += (line.starts_with('.') ? "\\&" : "") + line + "\n";
    line.clear();
  };
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find_first_of(" \n", begin), text.size());
    const std::string word = escaped_text(text.substr(begin, end - begin));
    if (line.size() + 1 + word.size() > kLongestLine) end_line();
    if (!word.empty()) line += (line.empty() ? "" : " ") + word;
    if (end < text.size() && text[end] == '\n' && !line.empty()) {
      end_line();
      page += ".br\n";
    }
    begin = end + 1;
  }
  end_line();
  return page;
}

std::string flag_item(const FlagEntry& flag) {
  std::vector<std::string> names;
  for (const std::string& name : {flag.short_name, flag.long_name, flag.opposite})
    if (!name.empty()) names.push_back(fmt::format("\\fB{}\\fR", escaped_text(name)));
  const std::string value = flag.shown_value.empty() ? "" : fmt::format(" \\fI{}\\fR", escaped_text(flag.shown_value));
  std::string help = flag.help;
  if (flag.value == FlagEntry::Value::kWord &&
      !std::ranges::any_of(flag.choices, [&](const std::string& choice) { return help.contains(choice); }))
    help += fmt::format(": {}", fmt::join(flag.choices, ", "));
  return fmt::format(".TP\n{}{}\n{}", fmt::join(names, ", "), value, paragraph(help));
}

std::string command_section(const CommandEntry& command) {
  std::string usage = fmt::format("\\fBcachalot {}\\fR [\\fIFLAGS\\fR]", escaped_text(command.path));
  if (!command.commands.empty()) usage += " \\fICOMMAND\\fR";
  for (const FlagEntry& positional : command.positionals)
    usage += fmt::format(" [\\fI{}\\fR]", escaped_text(positional.long_name));
  std::string page =
      fmt::format(".SS {}\n{}\n.PP\n{}", escaped_text(command.path), usage, paragraph(command.help + "."));
  for (const std::vector<FlagEntry>* flags : {&command.positionals, &command.flags})
    for (const FlagEntry& flag : *flags)
      if (flag.long_name != "--help") page += flag_item(flag);
  if (!command.footer.empty() && !command.footer.contains("`cachalot help COMMAND`"))
    page += ".PP\n" + paragraph(command.footer);
  return page;
}

std::string environment_section(const std::vector<CommandEntry>& table) {
  std::map<std::string, std::set<std::string>> flags_of_variables;
  for (const CommandEntry& command : table)
    for (const FlagEntry& flag : command.flags)
      if (!flag.variable.empty()) flags_of_variables[flag.variable].insert(flag.long_name);
  std::string page = ".SH ENVIRONMENT\n";
  for (const auto& [variable, flags] : flags_of_variables)
    page += fmt::format(".TP\n\\fB{}\\fR\n{}", escaped_text(variable),
                        paragraph(fmt::format("Stands in the place of {}.", fmt::join(flags, ", "))));
  page += ".TP\n\\fBCACHALOT_API_KEY\\fR, \\fBVLLM_API_KEY\\fR\n";
  return page + paragraph("Keys that open the API, where neither --api-key nor --api-key-file is given.");
}

constexpr std::string_view kEnd =
    R"(.SH EXIT STATUS
.TP
\fB0\fR
A command did what it was told to; a server has drained.
.TP
\fB1\fR
A command failed, and has said why.
.TP
\fB2\fR
The words of the command line make no sense.
.TP
\fB128\fR + a signal
It ended a server before that served.
.SH FILES
.TP
\fI/etc/cachalot/cluster.yaml\fR
The cluster that the systemd unit starts.
.TP
\fI/usr/share/doc/cachalot/docs\fR
The documents, where it was installed as a package of Debian.
)";

}  // namespace

std::string manual_page(const std::vector<CommandEntry>& table, const std::string& date) {
  const CommandEntry& program = table.front();
  std::string page = fmt::format(
      ".\\\" Written by `cachalot man`.\n.TH CACHALOT 1 \"{}\" \"cachalot {}\"\n.SH NAME\n"
      "cachalot \\- inference server for DeepSeek\\-R1 and its relatives\n"
      ".SH SYNOPSIS\n\\fBcachalot\\fR [\\fIFLAGS\\fR] \\fICOMMAND\\fR ...\n.SH DESCRIPTION\n{}"
      ".PP\nThe shortest way to an answer:\n.B cachalot up\nand, in another terminal,\n.BR \"cachalot chat\" .\n",
      date, kVersion, paragraph(program.help));
  page += ".SH OPTIONS\nThey stand before a command or behind it.\n";
  for (const FlagEntry& flag : program.flags) page += flag_item(flag);
  page += ".SH COMMANDS\n";
  for (const CommandEntry& command : table)
    if (!command.path.empty()) page += command_section(command);
  return page + environment_section(table) + std::string(kEnd);
}

}  // namespace cachalot
