// MPI's all-to-all and all-reduce, timed as `cachalot bench` times its own: calls follow each other without a barrier,
// a call's time is the mean over the ranks, and the median over the calls is printed. Built by run.sh.
//
//   collectives alltoall|allreduce ITERATIONS WARMUP SIZE...     prints "SIZE MICROSECONDS" a line
//
// Sizes are as in nccl-tests. The all-reduce adds floats: MPI has no bf16.
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void* left, const void* right) {
  const double a = *(const double*)left, b = *(const double*)right;
  return (a > b) - (a < b);
}

static void run(int all_to_all, char* sent, char* received, int size, int num_ranks) {
  if (all_to_all) {
    MPI_Alltoall(sent, size / num_ranks, MPI_BYTE, received, size / num_ranks, MPI_BYTE, MPI_COMM_WORLD);
  } else {
    MPI_Allreduce(MPI_IN_PLACE, sent, size / (int)sizeof(float), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  }
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank, num_ranks;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &num_ranks);
  if (argc < 5 || atoi(argv[2]) < 1) {
    if (rank == 0) fprintf(stderr, "usage: collectives alltoall|allreduce ITERATIONS WARMUP SIZE...\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  const int all_to_all = strcmp(argv[1], "alltoall") == 0, iterations = atoi(argv[2]), warmup = atoi(argv[3]);
  double* const times = malloc(sizeof(double) * (size_t)iterations);
  double* const sums = malloc(sizeof(double) * (size_t)iterations);
  for (int arg = 4; arg < argc; arg++) {
    const int size = atoi(argv[arg]);
    char* const sent = calloc((size_t)size, 1);
    char* const received = calloc((size_t)size, 1);
    memset(sent, 0, (size_t)size);  // so that every page is there
    memset(received, 0, (size_t)size);
    MPI_Barrier(MPI_COMM_WORLD);
    for (int call = 0; call < warmup; call++) run(all_to_all, sent, received, size, num_ranks);
    double start = MPI_Wtime();
    for (int call = 0; call < iterations; call++) {
      run(all_to_all, sent, received, size, num_ranks);
      const double end = MPI_Wtime();
      times[call] = end - start;
      start = end;
    }
    MPI_Reduce(times, sums, iterations, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
    if (rank == 0) {
      qsort(sums, (size_t)iterations, sizeof(double), compare);
      const double middle = (sums[iterations / 2] + sums[(iterations - 1) / 2]) / 2;
      printf("%d %.2f\n", size, middle / num_ranks * 1e6);
      fflush(stdout);
    }
    free(sent);
    free(received);
  }
  free(times);
  free(sums);
  MPI_Finalize();
  return 0;
}
