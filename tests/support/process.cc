// SPDX-License-Identifier: Apache-2.0
#include "tests/support/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace limpid::testing {

using Clock = std::chrono::steady_clock;

Process::Process(const std::vector<std::string>& command) {
  int out[2], err[2];
  EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
  EXPECT_EQ(pipe2(err, O_CLOEXEC), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_adddup2(&actions, err[1], 2);
  std::vector<char*> argv;
  for (const std::string& argument : command) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  EXPECT_EQ(
      posix_spawnp(&pid_, argv[0], &actions, nullptr, argv.data(), environ), 0)
      << command[0];
  posix_spawn_file_actions_destroy(&actions);
  close(out[1]);
  close(err[1]);
  output_ = out[0];
  errors_ = err[0];
}

Process::~Process() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (output_ >= 0) close(output_);
  if (errors_ >= 0) close(errors_);
}

bool Process::Pump(Clock::time_point limit) {
  pollfd files[2] = {{output_, POLLIN, 0}, {errors_, POLLIN, 0}};
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      limit - Clock::now());
  if (left.count() <= 0 || (output_ < 0 && errors_ < 0) ||
      poll(files, 2, static_cast<int>(left.count())) <= 0) {
    return false;
  }
  const auto read_from = [](int& file, short events, std::string& into) {
    if (file < 0 || events == 0) return;
    char buffer[65536];
    const ssize_t count = read(file, buffer, sizeof(buffer));
    if (count > 0) {
      into.append(buffer, count);
    } else {
      close(file);
      file = -1;
    }
  };
  read_from(output_, files[0].revents, result_.output);
  read_from(errors_, files[1].revents, result_.errors);
  return true;
}

std::string Process::ReadLine(std::chrono::seconds limit) {
  const auto until = Clock::now() + limit;
  for (;;) {
    const size_t end = result_.output.find('\n', line_begin_);
    if (end != std::string::npos) {
      const std::string line =
          result_.output.substr(line_begin_, end - line_begin_);
      line_begin_ = end + 1;
      return line;
    }
    if (!Pump(until)) return "";
  }
}

bool Process::WaitForError(const std::string& text,
                           std::chrono::seconds limit) {
  const auto until = Clock::now() + limit;
  while (result_.errors.find(text) == std::string::npos) {
    if (!Pump(until)) return false;
  }
  return true;
}

void Process::Signal(int signal) { kill(pid_, signal); }

ProcessResult Process::Wait(std::chrono::seconds limit) {
  const auto until = Clock::now() + limit;
  while (Pump(until)) {
  }
  if (Clock::now() >= until) kill(pid_, SIGKILL);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  result_.exit_status =
      WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result_;
}

ProcessResult RunProcess(const std::vector<std::string>& command,
                         std::chrono::seconds limit) {
  return Process(command).Wait(limit);
}

}  // namespace limpid::testing
