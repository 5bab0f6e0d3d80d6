/* Charts for papers: the description of a chart drawn on white, with its legend, as SVG and as PNG. */
#ifndef KAC_REPORT_PLOT_H
#define KAC_REPORT_PLOT_H

#include "chart.h"

/* Writes path.svg and path.png (each atomically); the chart's title stands on the y axis, the lines' titles in the legend. *drawn false and
 * nothing written when no line has a point. KAC_E_IO, KAC_E_MEMORY. */
kac_status kac_plot_write(const char *path, const kac_chart *c, bool *drawn);

#endif
