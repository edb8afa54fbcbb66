# A Shiny application, which has relative addresses only.
library(shiny)

ui <- fluidPage(textInput("name", "Name"), textOutput("greeting"))
server <- function(input, output) {
  output$greeting <- renderText(paste("Hello", input$name))
}
runApp(shinyApp(ui, server), host = "0.0.0.0", port = as.integer(Sys.getenv("PORT", "8888")), launch.browser = FALSE)
